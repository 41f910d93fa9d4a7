"""No-op jobs a second, and what one costs: commands, processor time, memory of the workers."""

from __future__ import annotations

from ..processes import BenchError
from ..sides import PEERS, Side
from .base import Bench, Row, Table, by, middle, span, take_turns

__all__ = ["measure", "tables"]

#: Most that a round should take to be worked off, judged by the round before.
SECONDS = 6.0


def measure(bench: Bench) -> list[Row]:
    counts = {side.name: max(100, int(bench.jobs * side.weight)) for side in bench.sides()}

    def one(side: Side) -> Row:
        row = drain(bench, side, counts[side.name])
        counts[side.name] = min(counts[side.name], max(100, int(row["pace"] * SECONDS)))
        return row

    return take_turns(bench, "throughput", bench.sides(), one)


def drain(bench: Bench, side: Side, jobs: int) -> Row:
    """Enqueue, then start the workers, and measure from the first tenth to the last job."""
    bench.fill(side, jobs)
    with bench.workers(side) as workers:
        bench.wait_done(side, workers, jobs, jobs // 10)
        spent = bench.spent(side, workers, jobs)
        # Again, as reading took a while.
        began, first = bench.wait_done(side, workers, jobs, jobs // 10)
        ended, last = bench.wait_done(side, workers, jobs, jobs)
        cost = bench.cost(side, workers, jobs, spent)
        memory = workers.memory()
    kept = PEERS[side.peer].kept(bench.server.client, jobs)
    if kept < jobs:
        raise BenchError(f"only {kept} of {jobs} results are kept")
    row = {"jobs": jobs, "first": first, "seconds": ended - began}
    row["pace"] = (last - first) / (ended - began)
    return row | {"memory": memory, **cost}


def tables(rows: list[Row]) -> list[Table]:
    sides = by(rows)
    paces = {name: middle(found, "pace") for name, found in sides.items()}
    lines, costs = [], []
    for name, found in sides.items():
        peer, topology = PEERS[found[0]["peer"]], str(found[0]["topology"])
        stock = paces.get(f"stock: {topology}")
        ratio = f"{paces[name] / stock:.1f}" if stock else ""
        pace = f"{paces[name]:,.0f}"
        lines.append([peer.title, topology, pace, span(found, "pace"), ratio, peer.on_kill])
        figures = [f"{middle(found, key):,.1f}" for key in ("commands", "round_trips")]
        figures += [f"{middle(found, key):,.0f}" for key in ("server_us", "worker_us")]
        figures.append(f"{middle(found, 'memory') / 1e6:,.0f}")
        costs.append([peer.title, topology, *figures])
    note = ""
    quiet, told = paces.get("ours: threads 8"), paces.get("ours: threads 8, INFO")
    if quiet and told:
        note = f"With a log at INFO in a file, ours reaches {told / quiet:.0%} of its pace."
    head = ["", "workers", "jobs/s", "rounds", "x stock", "a worker is killed: its job"]
    cost = ["", "workers", "commands", "round trips", "server, µs", "workers, µs", "memory, MB"]
    return [
        Table("No-op jobs a second", head, lines, note),
        Table(
            "What a no-op job costs while it is worked off",
            cost,
            costs,
            "Commands count those inside of scripts. Memory is the PSS of all processes of the "
            "workers at the end of the round.",
        ),
    ]
