"""How long an idle worker takes to start a job: from just before the enqueue to the task's body."""

from __future__ import annotations

from ..sides import PEERS, Side
from .base import Bench, Row, Table, by, middle, percentile, take_turns

__all__ = ["measure", "tables"]

JOBS = 200
WANTED = ("stock: threads 8", "ours: threads 8", "dramatiq: 2 x 4 threads", "huey: threads 8")
MORE = ("stock: prefork 2", "ours: prefork 2", "plain: threads 8", "taskiq: 2 workers")


def measure(bench: Bench) -> list[Row]:
    jobs = max(20, JOBS // bench.rounds)

    def one(side: Side) -> Row:
        with bench.workers(side) as workers:
            bench.wait_up(side, workers)
            with bench.client(side.peer, "one_by_one", jobs=jobs) as client:
                client.go(timeout=60 + jobs * 2)
        took = [seconds * 1e3 for seconds in bench.read_stamps("pickup")]
        return {"p50": percentile(took, 50), "p99": percentile(took, 99), "ms": took}

    wanted = WANTED + (MORE if bench.long else ())
    return take_turns(bench, "pickup", bench.sides(*wanted), one)


def tables(rows: list[Row]) -> list[Table]:
    lines = []
    for found in by(rows).values():
        every = [float(ms) for row in found for ms in row["ms"]]
        p50, p99 = f"{middle(found, 'p50'):,.1f}", f"{percentile(every, 99):,.1f}"
        title = PEERS[found[0]["peer"]].title
        lines.append([title, str(found[0]["topology"]), p50, p99, str(len(every))])
    head = ["", "workers", "p50, ms", "p99, ms", "jobs"]
    note = "p50 is the median of the rounds', p99 that of the jobs of all rounds."
    return [Table("From the enqueue to the start, nothing else to do", head, lines, note)]
