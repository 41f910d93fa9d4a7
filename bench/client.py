"""The side that enqueues, run in the virtual environment of the library that it is for.

    python -m bench.client <peer> <verb> <JSON>

It says when it is ready, does its work when told to, prints the outcome as JSON, and keeps its
connections until it is told to end, so that whoever asks can read the server's counters around it.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import sys
import time
import typing as t
from pathlib import Path

WARM_UP = 50
BATCH = 1_000


def fill(peer: t.Any, jobs: int) -> None:
    """Enqueue no-ops, by the quickest way there is."""
    if hasattr(peer, "many"):
        many(peer, jobs)
    else:
        for _ in range(jobs):
            peer.delay("nothing")


def many(peer: t.Any, jobs: int) -> float:
    """The seconds that each of ``jobs`` no-ops took, enqueued in batches."""
    started = time.perf_counter()
    for first in range(0, jobs, BATCH):
        peer.many("nothing", [()] * min(BATCH, jobs - first))
    return (time.perf_counter() - started) / jobs


def delays(peer: t.Any, jobs: int) -> list[float]:
    """The seconds that each ``delay`` took."""
    if hasattr(peer, "time_delays"):
        return t.cast("list[float]", peer.time_delays(jobs))
    took = []
    for _ in range(jobs):
        started = time.perf_counter()
        peer.delay("nothing")
        took.append(time.perf_counter() - started)
    return took


def one_by_one(peer: t.Any, jobs: int) -> None:
    """Enqueue a job, wait until it has started, pause; again."""
    stamps = Path(os.environ["BENCH_STAMPS"])
    chance = random.Random(1)
    for number in range(WARM_UP // 5 + jobs):
        size = stamps.stat().st_size
        kind = "pickup" if number >= WARM_UP // 5 else "warm"
        peer.delay("stamp", kind, time.time(), 0)
        deadline = time.monotonic() + 60
        while stamps.stat().st_size == size:
            if time.monotonic() > deadline:
                raise SystemExit("No worker has started the job within 60 s.")
            time.sleep(0.005)
        time.sleep(chance.uniform(0.02, 0.06))


def schedule(peer: t.Any, entries: list[tuple[float, str, float, float]]) -> float:
    """Enqueue by a timetable of (second, kind, duration, delay); how late it came, at worst."""
    begin, worst = time.time(), 0.0
    for second, kind, seconds, wait in entries:
        time.sleep(max(0.0, begin + second - time.time()))
        now = time.time()
        worst = max(worst, now - begin - second)
        if wait:
            peer.later(wait, "stamp", kind, now + wait, seconds)
        else:
            peer.delay("stamp", kind, now, seconds)
    return worst


VERBS = {f.__name__: f for f in (fill, many, delays, one_by_one, schedule)}


def main() -> None:
    name, verb, arguments = sys.argv[1:]
    peer = importlib.import_module(f"bench.peers.{name}")
    # A library may print; the answers have a stream of their own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if verb == "delays":
        delays(peer, WARM_UP)
    elif verb == "many":
        many(peer, WARM_UP)
    elif verb == "schedule":
        # The first of a kind loads modules, connects, or compiles on the server what it runs there.
        peer.delay("nothing")
        if any(wait for *_, wait in json.loads(arguments)["entries"]):
            peer.later(0.01, "nothing")
    print(json.dumps("ready"), file=answers)
    sys.stdin.readline()
    print(json.dumps(VERBS[verb](peer, **json.loads(arguments))), file=answers)
    sys.stdin.readline()
    answers.close()
    sys.stderr.flush()
    # Without the good-byes of the library, which would be counted.
    os._exit(0)


if __name__ == "__main__":
    main()
