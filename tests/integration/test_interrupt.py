"""Cancelled jobs in the pool of threads: stopped in the middle of their own code, only there."""

from __future__ import annotations

import signal
import threading
import time
import typing as t
from pathlib import Path

import pytest

from flask_offload import JobCancelled, JobState
from flask_offload._celery import interrupt
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System


def words(ledger: Path) -> list[str]:
    return ledger.read_text().split() if ledger.exists() else []


# -- in a worker


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def test_cancel_stops_a_loop_that_never_looks(system: System, ledger: Path) -> None:
    app = system.app()
    tasks = app.extensions["offload"].celery.tasks
    worker = system.worker("--pool", "threads", "--concurrency", "1")
    job = tasks["sample.spin"].delay(str(ledger), 60)
    wait_until(lambda: words(ledger) == ["start"])
    started = time.monotonic()
    job.cancel()
    wait_until(
        lambda: job.record.state.finished,
        message=lambda: f"the end of {job.record}; the worker: {worker.text}",
    )
    assert time.monotonic() - started < 2
    assert (job.record.state, job.state) == (JobState.CANCELLED, "REVOKED")
    assert words(ledger) == ["start", "tidied"]
    # The only thread of the pool runs other jobs.
    assert tasks["sample.add"].delay(1).get(timeout=10) == 2
    assert "Traceback" not in worker.text


def test_task_that_wants_no_interruption_gets_none(system: System, ledger: Path) -> None:
    app = system.app()
    tasks = app.extensions["offload"].celery.tasks
    system.worker("--pool", "threads", "--concurrency", "1")
    job = tasks["sample.steady"].delay(str(ledger), 3)
    wait_until(lambda: words(ledger) == ["start"])
    job.cancel()
    wait_until(lambda: job.record.state.finished)
    assert words(ledger) == ["start", "end"]


def test_lost_lease_stops_the_job_in_its_thread(system: System, ledger: Path) -> None:
    system.env["OFFLOAD_LEASE"] = "2"
    app = system.app()
    tasks = app.extensions["offload"].celery.tasks
    first = system.worker("--pool", "threads", "--concurrency", "1")
    job = tasks["sample.spin"].delay(str(ledger), 8)
    wait_until(lambda: words(ledger) == ["start"])
    first.signal(signal.SIGSTOP)
    system.worker("--pool", "threads", "--concurrency", "1")
    wait_until(lambda: words(ledger) == ["start", "start"], 30)
    first.signal(signal.SIGCONT)
    # The first one stops; the second one, which has the lease, does not.
    wait_until(lambda: words(ledger) == ["start", "start", "tidied"], 5)
    wait_until(lambda: job.record.state.finished, 30)
    assert job.record.state is JobState.SUCCEEDED
    assert words(ledger) == ["start", "start", "tidied", "end"]


# -- in threads of this process: what the registry promises


def spin(seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "spun"


def test_only_the_named_job_is_hit_and_its_thread_goes_on() -> None:
    outcome: dict[str, str] = {}

    def work(name: str) -> None:
        try:
            outcome[name] = interrupt.run((name, 1), __name__, spin, (1.5,), {})
        except JobCancelled as error:
            outcome[name] = type(error).__name__
        outcome[f"{name} after"] = interrupt.run((f"{name} after", 1), __name__, spin, (0.3,), {})

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    wait_until(lambda: {("a", 1), ("b", 1), ("c", 1)} <= interrupt._bodies.keys())
    interrupt.stop("a", 1)
    interrupt.stop("b", 1, interrupt.LeaseLost)
    interrupt.stop("c", 0)  # A delivery that is over.
    for thread in threads:
        thread.join(20)
    found = [outcome[name] for name in ("a", "b", "c")]
    assert found == ["JobCancelled", "LeaseLost", "spun"]
    assert [outcome[f"{name} after"] for name in ("a", "b", "c")] == ["spun"] * 3
    assert interrupt._bodies.keys() == set()


def test_job_that_ended_is_never_hit() -> None:
    """Bodies that end at the moment at which they are stopped, very many times."""
    stray: list[BaseException] = []
    counts = {"ended": 0, "stopped": 0}
    over = threading.Event()

    def work() -> None:
        number = 0
        try:
            while not over.is_set():
                number += 1
                entry = (f"job-{number}", 1)
                try:
                    # About as long as it takes until somebody looks.
                    interrupt.run(entry, __name__, spin, (0.0002 * (number % 7),), {})
                    counts["ended"] += 1
                except JobCancelled:
                    counts["stopped"] += 1
                # What comes too late would come here.
                for _ in range(200):
                    pass
        except BaseException as error:
            stray.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    end = time.monotonic() + 5
    while time.monotonic() < end and thread.is_alive():
        for body in list(interrupt._bodies.values()):
            body.hit(JobCancelled, time.monotonic())
    over.set()
    thread.join(10)
    assert stray == []
    assert counts["ended"] > 50
    assert counts["stopped"] > 50


def test_library_is_left_before_the_exception_comes() -> None:
    """What holds locks is not left in the middle: here, the lock of a queue of the library."""
    import queue

    box: queue.Queue[int] = queue.Queue()
    seen: list[str] = []

    def churn() -> None:
        try:
            while True:
                for number in range(50):
                    box.put(number)
                while not box.empty():
                    box.get()
        except JobCancelled:
            seen.append("stopped")
            raise

    def work() -> None:
        try:
            interrupt.run(("churn", 1), __name__, churn, (), {})
        except JobCancelled:
            seen.append("out")

    for _ in range(8):
        seen.clear()
        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: ("churn", 1) in interrupt._bodies)
        interrupt.stop("churn", 1)
        thread.join(20)
        assert seen == ["stopped", "out"]
        assert box.mutex.acquire(timeout=1), "the lock of the queue was left locked"
        box.mutex.release()
