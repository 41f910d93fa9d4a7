"""Long jobs, delays, workers that stand still, and clocks that are wrong."""

from __future__ import annotations

import signal
import typing as t
from pathlib import Path

from ledger import percentile

from waiting import wait_until

if t.TYPE_CHECKING:
    from lab import Lab

    from conftest import Bench

SHIFTED = str(Path(__file__).with_name("shifted"))


def test_row_5_long_job_and_long_delay(bench: Bench) -> None:
    """A second worker is there to take what it believes to be abandoned."""
    lab = bench.lab(lease=1)
    long = 10 * lab.lease
    lab.ready(*[lab.worker(ready=False, concurrency=3) for _ in range(2)])
    with bench.row(5) as result:
        lab.enqueue("long", long)
        lab.enqueue("busy", long, task="busy")
        lab.enqueue("delayed", 0, delay=long)
        bench.settle(lab, result, long + 30)
        starts = {
            token: len(lab.tally.runs.get(token, [])) for token in ("long", "busy", "delayed")
        }
        result.note(**starts)
        result.promise(set(starts.values()) == {1}, f"starts {starts}")


def test_row_6_worker_that_was_stopped_and_wakes_up(bench: Bench) -> None:
    lab = bench.lab(lease=2)
    rounds = bench.count(20)
    with bench.row(6) as result:
        if not bench.ours:
            result.note(fence="none")
            return
        stale = 0
        for number in range(rounds):
            token = f"stopped-{number}"
            sleeper = lab.worker()
            job = lab.enqueue(token, 3.0, task="fenced")
            wait_until(lambda token=token: lab.started(token), 20)  # type: ignore[misc]
            lab.fault("stop", sleeper.name)
            sleeper.group(signal.SIGSTOP)
            other = lab.worker()
            wait_until(lambda token=token: len(lab.tally.runs[token]) > 1, 20)  # type: ignore[misc]
            sleeper.group(signal.SIGCONT)
            wait_until(lambda job=job: job.record.state.finished, 30)  # type: ignore[misc]
            second = lab.tally.runs[token][1]
            result.promise(job.record.result == second.id, "the stale finish was taken")
            result.promise(lab.tally.effects[token] == 1, f"{lab.tally.effects[token]} effects")
            # Either it was refused at its end, or it was stopped before.
            stale += lab.tally.stale[token]
            result.promise(sleeper.alive, "the worker that woke up has died")
            for worker in (sleeper, other):
                worker.process.stop()
        result.note(rounds=rounds, stale_refused=stale)
        lab.worker()
        bench.settle(lab, result, 30)


def test_row_9_delayed_jobs_survive_all_workers(bench: Bench) -> None:
    lab = bench.lab(lease=2)
    count = bench.count(10_000)
    # What is measured is how late a job starts, not how many a second these workers can do.
    first, spread = 6 + 30 * bench.scale, max(4.0, 80 * bench.scale)
    workers = [lab.worker(concurrency=4, ready=False) for _ in range(2)]
    lab.ready(*workers)
    with bench.row(9) as result:
        producer = lab.producer(count=count, delay=[first, first + spread])
        wait_until(lambda: len(lab.tally.confirmed) > count // 2, 60)
        for worker in workers:
            lab.kill(worker)
        lab.produced(producer)
        fresh = [lab.worker(concurrency=4, ready=False) for _ in range(2)]
        lab.ready(*fresh)
        bench.settle(lab, result, first + spread + 30)
        early, late = 0, []
        for token, runs in lab.tally.runs.items():
            delay = first + spread * (int(token.rpartition("-")[2]) % count) / count
            early += runs[0].start < lab.tally.tried[token] + delay - 0.01
            late.append(runs[0].start - lab.tally.confirmed_at[token] - delay)
        result.note(early=early, late_p50=percentile(late, 0.5), late_p99=percentile(late, 0.99))
        result.promise(not early, f"{early} early")
        result.promise(percentile(late, 0.99) <= 2, "p99 later than 2 s")


def shift(hours: float) -> dict[str, str]:
    return {"PYTHONPATH": SHIFTED + _more_path(), "CHAOS_SHIFT": str(hours * 3600)}


def _more_path() -> str:
    import os

    rest = os.environ.get("PYTHONPATH")
    return f":{rest}" if rest else ""


def test_row_13_clocks_an_hour_apart(bench: Bench) -> None:
    """The web process is half an hour fast, one worker half an hour slow, another one right."""
    lab = bench.lab(lease=2)
    slow = lab.worker(concurrency=4, ready=False, **shift(-0.5))
    lab.ready(slow)
    with bench.row(13) as result:
        count = bench.count(100, 4)
        producer = lab.producer(env=shift(0.5), count=count, prefix="long", args=[3 * lab.lease])
        lab.produced(producer)
        wait_until(lambda: len(lab.tally.runs) >= 4, 20)
        lab.worker(concurrency=4)
        # Else the delayed ones wait for a slot, and their lateness says nothing of clocks.
        wait_until(lambda: len(lab.tally.completed) >= count or not bench.ours, 60 + count * 2)
        delayed = lab.producer(env=shift(0.5), count=count, prefix="late", delay=[4, 6])
        lab.produced(delayed)
        bench.settle(lab, result, 60 + count * 3)
        early = early_starts(lab, 4, 6, count)
        result.note(early=early, late_max=latest(lab, 4, 6, count))
        result.promise(not early, f"{early} delayed jobs early")
        result.promise(latest(lab, 4, 6, count) < 30, "delayed jobs are late")


def early_starts(lab: Lab, first: float, last: float, count: int) -> int:
    return sum(at < -0.01 for at in _late(lab, first, last, count, lab.tally.tried))


def latest(lab: Lab, first: float, last: float, count: int) -> float:
    return max(_late(lab, first, last, count, lab.tally.confirmed_at), default=0.0)


def _late(
    lab: Lab, first: float, last: float, count: int, since: dict[str, float]
) -> t.Iterator[float]:
    for token, runs in lab.tally.runs.items():
        if token.startswith("late-"):
            delay = first + (last - first) * (int(token.rpartition("-")[2]) % count) / count
            yield runs[0].start - since[token] - delay
