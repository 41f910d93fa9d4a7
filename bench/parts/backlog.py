"""What a job costs while very many wait, against few."""

from __future__ import annotations

import time

from ..sides import Side
from .base import Bench, Row, Table, by, find, middle

__all__ = ["measure", "tables"]

SIDE = "ours: threads 8"
#: The jobs of a window, after those of which a worker learns how long they take; and how many there
#: are where few wait, so that about a thousand do on average. Some are left at its end: a worker
#: has hundreds in hand, and must fetch in the window as many as it works off, or they would seem
#: cheaper.
FIRST, LAST, FEW = 1_000, 2_000, 2_600


def measure(bench: Bench) -> list[Row]:
    if "ours" not in bench.peers:
        return []
    side, rows = find(SIDE), []
    with bench.attempt("backlog"):
        for _ in range(bench.rounds):
            bench.reset()
            bench.fill(side, FEW)
            rows.append({"waiting": 1_000, **window(bench, side, FEW)})
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
