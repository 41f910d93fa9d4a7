"""What a job costs while very many wait, against few."""

from __future__ import annotations

import time

from ..sides import Side
from .base import Bench, Row, Table, by, find, middle

__all__ = ["measure", "tables"]

SIDE = "ours: threads 8"
#: The jobs of a window, so that with as many as its end a thousand wait on average.
FIRST, LAST = 500, 2_500


def measure(bench: Bench) -> list[Row]:
    if "ours" not in bench.peers:
        return []
    side, rows = find(SIDE), []
    with bench.attempt("backlog"):
        for _ in range(bench.rounds):
            bench.reset()
            bench.fill(side, LAST)
            rows.append({"waiting": (LAST - FIRST) // 2, **window(bench, side, LAST)})
        bench.reset()
        began = time.monotonic()
        bench.fill(side, bench.backlog)
        fill = time.monotonic() - began
        bench.server.settle()
        left = bench.backlog
        for _ in range(bench.rounds):
            # Those that the worker before had in hand count as not done; they are few.
            row = window(bench, side, left)
            rows.append({"waiting": bench.backlog, "fill_seconds": fill, **row})
            left -= int(row["over"])
    return rows


def window(bench: Bench, side: Side, jobs: int) -> Row:
    """What jobs cost between two points, with a worker that has just started."""
    with bench.workers(side) as workers:
        bench.wait_done(side, workers, jobs, FIRST)
        before = bench.spent(side, workers, jobs)
        bench.wait_done(side, workers, jobs, LAST)
        row = bench.cost(side, workers, jobs, before)
        over, *_ = bench.spent(side, workers, jobs)
    return {"side": side.name, "over": over, **row}


def tables(rows: list[Row]) -> list[Table]:
    lines, few = [], 0.0
    for waiting, found in by(rows, "waiting").items():
        server, worker = middle(found, "server_us"), middle(found, "worker_us")
        few = few or server + worker
        figures = [f"{figure:,.0f}" for figure in (server, worker, server + worker)]
        figures += [f"{(server + worker) / few:.2f}", f"{middle(found, 'commands'):,.1f}"]
        lines.append([f"{int(waiting):,}", *figures])
    head = ["jobs that wait", "server, µs", "worker, µs", "together", "x few", "commands"]
    return [Table(f"What a job costs at a backlog ({SIDE})", head, lines)]
