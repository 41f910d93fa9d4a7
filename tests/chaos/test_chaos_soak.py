"""What is left after all kinds of work, and what half an hour of it does."""

from __future__ import annotations

import time
import typing as t
from contextlib import suppress
from pathlib import Path

import pytest
from celery import chain, chord, group

from conftest import SCALE
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import Bench


def test_row_19_nothing_is_left(bench: Bench) -> None:
    """A bit of everything that makes keys; then all records expire."""
    lab = bench.lab(OFFLOAD_RETENTION="3")
    workers = [lab.worker(concurrency=2, ready=False) for _ in range(2)]
    lab.ready(*workers)
    tasks = lab.app.extensions["offload"].celery.tasks
    job, total = tasks["tasks_app.job"], tasks["tasks_app.total"]
    with bench.row(19) as result:
        count = bench.count(200)
        cancelled = [lab.enqueue(f"cancelled-{n}", 0, delay=3600) for n in range(count)]
        for number in range(count):
            lab.enqueue(f"plain-{number}", 0)
            lab.enqueue(f"late-{number}", 0, delay=1)
            lab.enqueue(f"flaky-{number}", task="flaky")
            lab.enqueue(f"fail-{number}", task="fail")
            chain(job.si(f"first-{number}"), job.si(f"second-{number}")).delay()
            group(job.si(f"group-{number}-{n}") for n in range(2)).delay()
            chord(
                [job.si(f"part-{number}-{n}") for n in range(2)], total.s(f"all-{number}")
            ).delay()
        for one in cancelled:
            one.cancel()
        lab.kill(workers[0])
        wanted = {f"{kind}-{n}" for kind in ("second", "all") for n in range(count)}
        done = lambda: not ({k for k in lab.tally.lost if not k.startswith("cancelled")}  # noqa: E731
                            | (wanted - set(lab.tally.completed)))  # fmt: skip
        drained = lab.drain(60, done)
        result.promise(drained, f"did not drain: {sorted(wanted - set(lab.tally.completed))[:5]}")
        left = lab.leaks()
        result.note(after_drain=len(left))
        result.promise(not left, f"after the drain: {left[:5]}")
        keys = lab.control.store.keys

        def records() -> list[str]:
            with lab.server.client() as client:
                found = client.scan_iter(count=1000)
                names = [key.removeprefix(keys.prefix) for key in found]
                names = [n for n in names if n.partition(":")[0] in {"job", "log", "result"}]
                lists = ("jobs", "expiry")
                return names + [n for n in lists if client.zcard(f"{keys.prefix}{n}")]

        with suppress(AssertionError):
            wait_until(lambda: not records(), 30, 0.2)
        forever = records()
        result.note(after_expiry=len(forever))
        result.promise(not forever, f"not expired: {forever[:5]}")
        with lab.server.client() as client:
            rest = sorted(k.removeprefix(keys.prefix) for k in client.scan_iter(count=1000))
        result.note(keys_at_the_end=len(rest))


def memory(pid: int) -> float:
    """Megabytes that a process and its children hold."""
    text = Path(f"/proc/{pid}/status").read_text()
    own = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own / 1000 + sum(memory(int(child)) for child in children)


@pytest.mark.skipif(SCALE < 1, reason="the long form only: make chaos")
def test_row_20_soak(bench: Bench) -> None:
    lab = bench.lab(lease=5, OFFLOAD_RETENTION="60")
    seconds, rate = 1800 * SCALE, 500
    survivor = lab.worker(concurrency=4)
    victim = lab.worker(concurrency=4)
    producer = lab.producer(count=int(seconds * rate), rate=rate, seconds=seconds + 60)
    samples: list[tuple[float, float]] = []
    with bench.row(20) as result:
        started = time.monotonic()
        while producer.popen.poll() is None:
            at = time.monotonic() + 60
            wait_until(lambda at=at: time.monotonic() > at or producer.popen.poll() is not None, 90)  # type: ignore[misc]
            lab.kill(victim)
            victim = lab.worker(concurrency=4)
            with lab.server.client() as client:
                server = client.info("memory")["used_memory"] / 1e6
            samples.append((memory(survivor.process.pid), server))
        lab.produced(producer)
        result.note(seconds=time.monotonic() - started)
        bench.settle(lab, result, 120)
        # The first minutes fill what is retained for a minute.
        early, late = samples[min(4, len(samples) - 1)], samples[-1]
        result.note(worker_mb=f"{early[0]:.0f} → {late[0]:.0f}")
        result.note(server_mb=f"{early[1]:.0f} → {late[1]:.0f}")
        result.promise(late[0] < early[0] * 1.1 + 5, "the worker's memory grows")
        result.promise(late[1] < early[1] * 1.2 + 5, "the server's memory grows")
