"""Workers and servers that are killed: what was confirmed is completed, and runs no more often
than there were deaths in the middle of it."""

from __future__ import annotations

import os
import signal
import time
import typing as t

import pytest
from ledger import percentile

from waiting import wait_until

if t.TYPE_CHECKING:
    from lab import Lab

    from conftest import Bench


def test_row_1_kills_and_restarts_under_load(bench: Bench) -> None:
    lab = bench.lab()
    kills, restarts = bench.count(50, 3), bench.count(5, 1)
    count = bench.count(10_000)
    workers = [lab.worker(ready=False) for _ in range(2)]
    lab.ready(*workers)
    rate = 60
    producer = lab.producer(count=count, rate=rate, args=[0.02])
    faults = ["kill"] * kills + ["restart"] * restarts
    lab.random.shuffle(faults)
    wait_until(lambda: lab.tally.completed, 30)
    pause = count / rate / (len(faults) + 1)
    with bench.row(1) as result:
        for fault in faults:
            at = time.monotonic() + lab.random.uniform(0.5, 1.5) * pause
            wait_until(lambda at=at: time.monotonic() >= at, 60)  # type: ignore[misc]
            if fault == "kill":
                victim = lab.random.randrange(len(workers))
                lab.kill(workers[victim])
                workers[victim] = lab.worker(ready=False)
            else:
                lab.restart_server()
        lab.produced(producer, count / rate * 3 + 60)
        bench.settle(lab, result, 90)
        in_flight = lab.tally.hit
        result.note(in_flight=in_flight, kills=kills, restarts=restarts)
        result.promise(len(lab.tally.extra) <= in_flight, "more extra starts than in flight")


def test_row_2_fetch_window(bench: Bench) -> None:
    """A worker is stopped while it waits for work, or while it takes it, and never wakes up."""
    lab = bench.lab()
    victims = 5
    with bench.row(2) as result:
        for number in range(bench.count(200 // victims, 2)):
            workers = [
                lab.worker("-Q", f"q{victim}", concurrency=1, ready=False)
                for victim in range(victims)
            ]
            lab.ready(*workers)
            for victim, worker in enumerate(workers):

                def publish(number: int = number, victim: int = victim) -> None:
                    lab.enqueue(f"{number}-{victim}", 0, queue=f"q{victim}")

                if lab.random.random() < 0.5:
                    worker.group(signal.SIGSTOP)
                    publish()
                else:
                    publish()
                    time.sleep(lab.random.uniform(0, 0.005))
                    worker.group(signal.SIGSTOP)
            for worker in workers:
                lab.kill(worker)
        lab.worker("-Q", ",".join(f"q{victim}" for victim in range(victims)))
        bench.settle(lab, result, 40)


def runs_again(lab: Lab, tokens: list[str], killed: dict[str, float]) -> list[float]:
    """Seconds from each kill to the next start."""
    wait_until(lambda: all(len(lab.tally.runs[token]) > 1 for token in tokens), 60, 0.05)
    return [lab.tally.runs[token][1].start - killed[token] for token in tokens]


def test_row_3_killed_in_the_middle(bench: Bench) -> None:
    lab = bench.lab(lease=3)
    took: list[float] = []
    with bench.row(3) as result:
        for number in range(bench.count(25)):
            tokens = [f"{number}-{n}" for n in range(4)]
            victim = lab.worker(concurrency=4)
            for token in tokens:
                lab.enqueue(token, 4.0)
            wait_until(lambda tokens=tokens: lab.started(*tokens), 20)  # type: ignore[misc]
            # The one that takes over is up already: its start is not what is measured.
            other = lab.worker(concurrency=4)
            assert not set(tokens) & set(lab.tally.completed), "over before the kill"
            killed = dict.fromkeys(tokens, time.monotonic())
            lab.kill(victim)
            took += runs_again(lab, tokens, killed)
            other.process.stop()
        lab.worker()
        result.note(again_p50=percentile(took, 0.5), again_p99=percentile(took, 0.99))
        result.note(lease=lab.lease, measured=len(took))
        result.promise(percentile(took, 0.99) <= lab.lease + 5, "later than lease + 5 s")
        bench.settle(lab, result, 60)


def test_row_4_pool_child_killed(bench: Bench) -> None:
    """The lease is long: it is the worker, which lives, that gives the job back."""
    if bench.pool != "prefork":
        pytest.skip("Only prefork has children.")
    lab = bench.lab(lease=30)
    worker = lab.worker(concurrency=2)
    took: list[float] = []
    with bench.row(4) as result:
        for number in range(bench.count(20, 2)):
            token = f"child-{number}"
            lab.enqueue(token, 1.0)
            wait_until(lambda token=token: lab.started(token), 20)  # type: ignore[misc]
            at = time.monotonic()
            lab.fault("child", worker.name)
            os.kill(lab.tally.runs[token][0].pid, signal.SIGKILL)
            took += runs_again(lab, [token], {token: at})
            wait_until(lambda token=token: token in lab.tally.completed, 20)  # type: ignore[misc]
        result.note(again_max=max(took))
        result.promise(max(took) <= 5, "later than 5 s")
        result.promise(worker.alive, "the worker died")
        bench.settle(lab, result, 20)


def test_row_14_poison(bench: Bench) -> None:
    """A supervisor restarts workers that end, as in production. Half of the capacity is used."""
    lab = bench.lab(lease=2, OFFLOAD_MAX_DELIVERIES="3")
    seconds = max(8.0, 60 * bench.scale)
    workers = [lab.worker(concurrency=4, ready=False) for _ in range(2)]
    lab.ready(*workers)

    def watch(until: float) -> int:
        before = len(lab.tally.completed)
        while time.monotonic() < until:
            for index, worker in enumerate(workers):
                if not worker.alive:
                    lab.fault("poison", worker.name)
                    workers[index] = lab.worker(concurrency=4, ready=False)
            time.sleep(0.02)
        return len(lab.tally.completed) - before

    with bench.row(14) as result:
        rate = 15
        producer = lab.producer(count=int(2 * seconds * rate), rate=rate, args=[0.1])
        wait_until(lambda: lab.tally.completed, 30)
        plain = watch(time.monotonic() + seconds)
        poison = lab.enqueue("poison", task="poison")
        sick = watch(time.monotonic() + seconds)
        lab.produced(producer)
        with_poison = lambda: lab.tally.lost <= {"poison"} and poison.record.state.finished  # noqa: E731

        def drained() -> bool:
            watch(time.monotonic() + 0.05)
            return bool(with_poison())

        lab.drain(60, drained)
        runs = lab.tally.runs.get("poison", [])
        result.note(pace=sick / plain, poison_starts=len(runs), poison=str(poison.record.state))
        result.promise(str(poison.record.state) == "dead", "the poison job is not dead")
        # A start in the last moments of a worker is not told, and so does not count.
        result.promise(len(runs) in (3, 4), "not as many starts as the limit says")
        result.promise(sick >= 0.9 * plain, "others were slowed down")
        lost = lab.tally.lost - {"poison"}
        result.note(lost=len(lost), extra_starts=len(lab.tally.extra) - len(runs) + 1)
        result.promise(not lost, f"lost {sorted(lost)[:5]}")
