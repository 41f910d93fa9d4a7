"""Limits of what a process of a prefork pool may take, while bundles run; and what those leave."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import typing as t
from collections import Counter
from pathlib import Path

import pytest

from bundles import ONE, PREFORK, Many, children, finished, get_known, tasks_of, words
from flask_offload import JobState
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System

TWO = (*PREFORK, "2")


def test_processes_that_are_replaced_after_some_jobs(system: System, tmp_path: Path) -> None:
    worker = system.worker(*TWO, "--max-tasks-per-child", "50")
    many = Many(system, tmp_path / "ledger")
    before = set(children(worker.pid))
    many.add(500)
    many.check()
    many.check_nothing_is_held()
    wait_until(lambda: not before & set(children(worker.pid)), 20)
    assert worker.stop() == 0


def test_processes_that_are_replaced_for_their_memory(system: System, tmp_path: Path) -> None:
    """Every process is too large for this limit, after each job."""
    worker = system.worker(*TWO, "--max-memory-per-child", "1000")
    many = Many(system, tmp_path / "ledger")
    many.add(40)
    many.check()
    many.check_nothing_is_held()
    assert len(set(re.findall(r"ForkPoolWorker-\d+", worker.text))) == 40
    assert worker.stop() == 0


@pytest.mark.parametrize("soft", [True, False])
def test_time_limit_of_one_among_quick_jobs(system: System, tmp_path: Path, soft: bool) -> None:
    """It is of the same task as they are, and somewhere in the middle."""
    ledger, slow = tmp_path / "ledger", f"{tmp_path}/slow"
    sleep = tasks_of(system)["sample.sleep"]
    worker = system.worker(*ONE)
    get_known(sleep)
    with sleep.app.engine.together():
        jobs = [sleep.delay(0, str(ledger)) for _ in range(30)]
        limit = {"soft_time_limit": 1} if soft else {"time_limit": 1}
        limited = sleep.apply_async((60, slow), **limit)
        jobs += [sleep.delay(0, str(ledger)) for _ in range(30)]
    record = wait_until(lambda: finished(limited), 20, message=lambda: worker.text)
    error = "SoftTimeLimitExceeded" if soft else "TimeLimitExceeded"
    assert (record.state, record.starts, record.error_type) == (JobState.FAILED, 1, error)
    for job in jobs:
        assert job.get(timeout=20) == "slept"
    assert {job.record.starts for job in jobs} == {1}
    assert words(ledger).count("start") == len(jobs)
    assert words(Path(slow)) == ["start"]


def descriptors(pid: int) -> Counter[str]:
    """How many of each kind a process has, but for connections, which come and go."""
    found = Counter[str]()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[fd.readlink().as_posix().partition(":[")[0]] += 1
    assert found.pop("socket") < 20
    return found


def memory(pid: int) -> int:
    """In kB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_nothing_is_left_of_bundles_and_of_processes(system: System, tmp_path: Path) -> None:
    worker = system.worker(*TWO, "worker_pool_restarts=1")
    many = Many(system, tmp_path / "ledger")

    def used() -> tuple[Counter[str], list[int]]:
        """Of the worker, and how many its processes have."""
        pids = children(worker.pid)
        return descriptors(worker.pid), sorted(descriptors(pid).total() for pid in pids)

    def has_two(seen: set[int] = frozenset()) -> bool:  # type: ignore[assignment]
        now = set(children(worker.pid))
        return len(now) == 2 and not now & seen

    many.add(20_000)
    many.check()
    before, size = used(), memory(worker.pid)
    many.add(30_000)  # Well over a thousand bundles.
    many.check()
    assert used() == before
    assert memory(worker.pid) < size + 5_000
    for kill in (False, True) * 3:
        pids = set(children(worker.pid))
        if kill:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        else:
            many.control.broadcast("pool_restart", reply=True, limit=1, timeout=5)
        many.add(100)
        many.check()
        wait_until(lambda pids=pids: has_two(pids), 20)  # type: ignore[misc]
    many.check_nothing_is_held()
    # Connections for replies have a poller each, and stay. What each round left would be six times.
    wait_until(
        lambda: (used()[0] - before[0]).total() < 6, message=lambda: f"{used()}, not {before}"
    )
