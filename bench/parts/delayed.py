"""How late delayed jobs start, on idle workers and on workers that are busy to half."""

from __future__ import annotations

import random

from ..sides import PEERS, Side
from .base import Bench, Row, Table, by, middle, percentile, take_turns

__all__ = ["measure", "tables"]

JOBS, SECONDS = 100, 4.0
#: A second of it: as many jobs as keep half of the eight slots busy.
LOAD, LOAD_SECONDS = 100, 0.04
WANTED = ("stock: threads 8", "ours: threads 8")
MORE = ("dramatiq: 2 x 4 threads", "huey: threads 8")


def timetable(loaded: bool) -> list[tuple[float, str, float, float]]:
    chance = random.Random(1)
    gap = SECONDS / JOBS
    entries = [(n * gap, "delayed", 0.0, chance.uniform(0.5, 2)) for n in range(JOBS)]
    if loaded:
        count = int((SECONDS + 2) * LOAD)
        entries += [(n / LOAD, "load", LOAD_SECONDS, 0.0) for n in range(count)]
    return sorted(entries)


def measure(bench: Bench) -> list[Row]:
    def run(side: Side, loaded: bool) -> Row:
        with bench.workers(side) as workers:
            bench.wait_up(side, workers)
            with bench.client(side.peer, "schedule", entries=timetable(loaded)) as client:
                behind = client.go()
            bench.wait_stamps(JOBS, workers, kind="delayed", timeout=60)
        late = [seconds * 1e3 for seconds in bench.read_stamps("delayed")]
        row = {"loaded": loaded, "ms": late, "behind": behind}
        return row | {"p50": percentile(late, 50), "p99": percentile(late, 99)}

    sides = bench.sides(*WANTED, *(MORE if bench.long else ()))
    rounds = bench.rounds if bench.long else min(2, bench.rounds)
    idle = take_turns(bench, "delayed, idle", sides, lambda side: run(side, False), rounds)
    return idle + take_turns(bench, "delayed, busy", sides, lambda side: run(side, True), rounds)


def tables(rows: list[Row]) -> list[Table]:
    lines = []
    for loaded in (False, True):
        for found in by(row for row in rows if row["loaded"] is loaded).values():
            every = [float(ms) for row in found for ms in row["ms"]]
            p50, p99 = f"{middle(found, 'p50'):,.1f}", f"{percentile(every, 99):,.1f}"
            title, busy = PEERS[found[0]["peer"]].title, "busy to half" if loaded else "idle"
            lines.append([title, str(found[0]["topology"]), busy, p50, p99, str(len(every))])
    head = ["", "workers", "they are", "p50, ms", "p99, ms", "jobs"]
    return [Table("How late delayed jobs start", head, lines)]
