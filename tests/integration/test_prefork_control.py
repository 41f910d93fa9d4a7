"""Commands to a worker whose prefork pool runs bundles: none loses a job, or starts one twice."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from bundles import ONE, PREFORK, Many, bundle_with_a_slow_one, children, tasks_of, words
from flask_offload import JobState
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System

TWO = (*PREFORK, "2")
COUNT = 3_000


@pytest.mark.parametrize("options", [{}, {"modules": ["sample"], "reload": True}])
def test_pool_restart_while_bundles_run(
    system: System, tmp_path: Path, options: dict[str, t.Any]
) -> None:
    worker = system.worker(*TWO, "worker_pool_restarts=1")
    many = Many(system, tmp_path / "ledger")
    many.add(COUNT)
    seen = set(children(worker.pid))
    for step in range(1, 5):
        many.wait_for_start(step * COUNT // 6)
        (answer,) = many.control.broadcast(
            "pool_restart", arguments=options, reply=True, limit=1, timeout=5
        )
        assert answer == {"w0@test": {"ok": "reload started"}}
        now = wait_until(lambda old=set(seen): new_ones(worker.pid, old), 20)  # type: ignore[misc]
        seen |= now
    many.check()
    many.check_nothing_is_held()
    assert worker.stop() == 0


def new_ones(pid: int, seen: set[int]) -> set[int]:
    """The processes of a worker, if one of them is new."""
    now = set(children(pid))
    return now if now - seen else set()


def test_pool_shrinks_and_grows_while_bundles_run(system: System, tmp_path: Path) -> None:
    worker = system.worker(*PREFORK, "3")
    many = Many(system, tmp_path / "ledger")

    def command(name: str, n: int = 1) -> bool:
        """Shrinking is refused where all processes are at work."""
        (answer,) = many.control.broadcast(name, arguments={"n": n}, reply=True, limit=1, timeout=5)
        return "ok" in answer["w0@test"]

    shrank = 0
    for _ in range(200):
        many.add(20)
        if command("pool_shrink"):
            shrank += 1
            assert command("pool_grow")
    many.check()
    many.check_nothing_is_held()
    assert shrank > 20
    assert "WorkerLostError" not in worker.text
    assert command("pool_shrink", len(children(worker.pid)) - 1)
    wait_until(lambda: len(children(worker.pid)) == 1, 20)
    many.add(100)
    many.check()
    assert worker.stop() == 0


def test_autoscale_while_many_run(system: System, tmp_path: Path) -> None:
    worker = system.worker("--pool", "prefork", "--autoscale", "4,1", AUTOSCALE_KEEPALIVE="0.5")
    many = Many(system, tmp_path / "ledger")
    for _ in range(3):
        more = many.add(500)
        many.wait_for_start(len(many.jobs) - len(more) + 1)
        wait_until(lambda: len(children(worker.pid)) > 1, 20)
        many.check()
        wait_until(lambda: len(children(worker.pid)) == 1, 20)
    many.check_nothing_is_held()


def test_queue_that_is_cancelled_and_added_again(system: System, tmp_path: Path) -> None:
    worker = system.worker(*TWO, "--queues", "celery,other")
    many = Many(system, tmp_path / "ledger")
    many.add(COUNT // 2)
    many.add(COUNT // 2, queue="other")

    def consumed() -> set[str]:
        (queues,) = many.control.inspect(timeout=5).active_queues().values()
        return {queue["name"] for queue in queues}

    many.wait_for_start(COUNT // 6)
    many.control.cancel_consumer("celery")
    many.control.cancel_consumer("other")
    wait_until(lambda: not consumed(), 20)
    many.check_nothing_is_held()
    after = many.started
    left = many.add(1)
    assert consumed() == set()
    assert many.started == after < len(many.jobs)
    assert left[0].record.state is JobState.QUEUED
    many.control.add_consumer("other")
    many.control.add_consumer("celery")
    many.check()
    assert worker.stop() == 0


def test_rate_that_is_limited_while_bundles_run(system: System, tmp_path: Path) -> None:
    system.worker(*TWO)
    many = Many(system, tmp_path / "ledger")
    many.add(COUNT)
    many.wait_for_start(COUNT // 6)
    many.control.rate_limit("sample.note", "100/s", reply=True, limit=1, timeout=5)
    # What waited in the lane is still run. For its turn waits no more than the worker prefetches.
    many.check_nothing_is_held()
    many.wait_for_start(many.started + 3)
    # First what is in line, so that a job which starts in between does not count as held.
    waiting = many.store.size("celery")
    assert COUNT - waiting - many.started <= 2 * 4
    assert many.started < COUNT
    many.control.rate_limit("sample.note", None, reply=True, limit=1, timeout=5)
    many.check()
    many.check_nothing_is_held()


@pytest.mark.parametrize("terminate", [False, True])
def test_revoke_of_what_waits_in_a_bundle(system: System, tmp_path: Path, terminate: bool) -> None:
    ledger = tmp_path / "ledger"
    sleep = tasks_of(system)["sample.sleep"]
    system.worker(*ONE)
    slow, rest = bundle_with_a_slow_one(sleep, ledger, before=10, seconds=3)
    revoked, rest = rest[-5:], rest[:-5]
    ids = [job.id for job in revoked]
    sleep.app.control.revoke(
        ids, terminate=terminate, signal="SIGKILL", reply=True, limit=1, timeout=5
    )
    for job in (slow, *rest):
        assert job.get(timeout=20) == "slept"
    assert {job.record.starts for job in (slow, *rest)} == {1}
    assert words(ledger).count("start") == len(rest)
    for job in revoked:
        wait_until(lambda job=job: job.record.state is JobState.CANCELLED)  # type: ignore[misc]
        assert job.record.starts == 0


def test_revoke_with_terminate_of_the_one_that_runs(system: System, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    sleep = tasks_of(system)["sample.sleep"]
    worker = system.worker(*ONE)
    slow, rest = bundle_with_a_slow_one(sleep, ledger, before=10, seconds=60)
    sleep.app.control.revoke(
        slow.id, terminate=True, signal="SIGKILL", reply=True, limit=1, timeout=5
    )
    for job in rest:
        assert job.get(timeout=20) == "slept"
    assert {job.record.starts for job in rest} == {1}
    assert words(ledger).count("start") == len(rest)
    wait_until(lambda: slow.record.state is JobState.CANCELLED, message=lambda: worker.text)
    assert words(Path(f"{ledger}.slow")) == ["start"]
