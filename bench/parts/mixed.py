"""How long jobs of a millisecond wait while jobs of ten seconds run, and a slot is free."""

from __future__ import annotations

from ..sides import PEERS, Side, celery, pair
from .base import Bench, Row, Table, by, middle, percentile, take_turns

__all__ = ["measure", "tables"]

#: Of four slots, three are taken by long jobs.
LONG, LONG_SECONDS = 3, 10.0
SHORT, SHORT_SECONDS, GAP = 300, 0.001, 0.025


def slow(peer: str) -> list[Side]:
    return [
        Side(peer, "prefork 4", [celery(peer, "-P", "prefork", "-c", "4")]),
        Side(peer, "2 x 2 threads", pair(peer, "-P", "threads", "-c", "2")),
    ]


def measure(bench: Bench) -> list[Row]:
    long = [(n * 0.1, "long", LONG_SECONDS, 0.0) for n in range(LONG)]
    short = [(1 + n * GAP, "short", SHORT_SECONDS, 0.0) for n in range(SHORT)]

    def one(side: Side) -> Row:
        with bench.workers(side) as workers:
            bench.wait_up(side, workers)
            with bench.client(side.peer, "schedule", entries=long + short) as client:
                behind = client.go()
            bench.wait_stamps(SHORT, workers, kind="short", timeout=60)
        waits = [seconds * 1e3 for seconds in bench.read_stamps("short")]
        row = {"ms": waits, "worst": max(waits), "behind": behind}
        return row | {"p50": percentile(waits, 50), "p99": percentile(waits, 99)}

    sides = [side for peer in ("stock", "ours") if peer in bench.peers for side in slow(peer)]
    # What it shows is a matter of seconds; one round is enough for every day.
    return take_turns(bench, "mixed", sides, one, rounds=0 if bench.long else 1)


def tables(rows: list[Row]) -> list[Table]:
    lines = []
    for found in by(rows).values():
        figures = [f"{middle(found, key):,.1f}" for key in ("p50", "p99", "worst")]
        lines.append([PEERS[found[0]["peer"]].title, str(found[0]["topology"]), *figures])
    head = ["", "workers", "p50, ms", "p99, ms", "longest, ms"]
    note = f"{LONG} jobs of {LONG_SECONDS:.0f} s hold three of four slots; {SHORT} of 1 ms follow."
    return [Table("What short jobs wait beside long ones", head, lines, note)]
