"""A prefork pool whose processes get quick jobs in bundles: what one finds out of many."""

from __future__ import annotations

import os
import signal
import typing as t
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from bundles import ONE, bundle_with_a_slow_one, children, tasks_of, words
from flask_offload import JobState
from waiting import wait_until

if t.TYPE_CHECKING:
    import servers
    from conftest import System


def test_what_waits_in_a_stuck_process_goes_to_another_worker(
    system: System, tmp_path: Path
) -> None:
    sleep = tasks_of(system)["sample.sleep"]
    system.worker(*ONE)
    slow, rest = bundle_with_a_slow_one(sleep, tmp_path / "ledger", before=10)
    system.worker(*ONE)
    for job in rest:
        assert job.get(timeout=20) == "slept"
    assert not slow.ready()
    assert {job.record.starts for job in rest} == {1}
    assert words(tmp_path / "ledger").count("start") == len(rest)
    assert slow.get(timeout=20) == "slept"
    assert slow.record.starts == 1


def test_ends_before_a_slow_job_do_not_wait_for_it(system: System, tmp_path: Path) -> None:
    sleep = tasks_of(system)["sample.sleep"]
    system.worker(*ONE)
    slow, rest = bundle_with_a_slow_one(sleep, tmp_path / "ledger", before=10)
    for job in rest[:10]:
        assert job.get(timeout=3) == "slept"
    assert not slow.ready()


def test_stop_gives_back_what_waits_and_lets_the_rest_finish(
    system: System, tmp_path: Path
) -> None:
    sleep = tasks_of(system)["sample.sleep"]
    first = system.worker(*ONE)
    slow, rest = bundle_with_a_slow_one(sleep, tmp_path / "ledger")
    assert first.stop() == 0
    assert slow.record.state is JobState.SUCCEEDED
    assert not any(job.ready() for job in rest)
    system.worker(*ONE)
    for job in rest:
        assert job.get(timeout=20) == "slept"
    assert {job.record.starts for job in (slow, *rest)} == {1}
    assert words(tmp_path / "ledger").count("start") == len(rest)


def test_only_the_job_of_a_killed_process_runs_again(system: System, tmp_path: Path) -> None:
    sleep = tasks_of(system)["sample.sleep"]
    worker = system.worker(*ONE)
    slow, rest = bundle_with_a_slow_one(sleep, tmp_path / "ledger", before=10)
    for job in rest[:10]:
        job.get(timeout=20)  # What was told survives its process.
    (child,) = children(worker.popen.pid)
    os.kill(child, signal.SIGKILL)
    for job in (slow, *rest):
        assert job.get(timeout=20) == "slept"
    assert slow.record.starts == 2
    assert words(Path(f"{tmp_path}/ledger.slow")) == ["start", "start", "end"]
    assert {job.record.starts for job in rest} == {1}
    assert words(tmp_path / "ledger").count("start") == len(rest)


def test_cancel_stops_one_job_of_many(system: System, tmp_path: Path) -> None:
    sleep = tasks_of(system)["sample.sleep"]
    system.worker(*ONE)
    slow, rest = bundle_with_a_slow_one(sleep, tmp_path / "ledger", before=10)
    last = rest.pop()
    slow.cancel()
    last.cancel()
    for job in rest:
        assert job.get(timeout=20) == "slept"
    assert {job.record.starts for job in rest} == {1}
    wait_until(lambda: slow.record.state is JobState.CANCELLED)
    assert last.record.state is JobState.CANCELLED
    assert words(tmp_path / "ledger").count("start") == len(rest)
    assert words(Path(f"{tmp_path}/ledger.slow")) == ["start"]


def test_inspect_shows_the_one_that_runs(system: System, tmp_path: Path) -> None:
    sleep = tasks_of(system)["sample.sleep"]
    system.worker(*ONE)
    slow, rest = bundle_with_a_slow_one(sleep, tmp_path / "ledger", before=10)

    def active() -> list[str]:
        (jobs,) = sleep.app.control.inspect(timeout=2).active().values()
        return [job["id"] for job in jobs]

    wait_until(lambda: active() == [slow.id])
    for job in rest:
        assert job.get(timeout=20) == "slept"
    wait_until(lambda: active() == [])


def test_slow_jobs_stay_in_line_whatever_may_be_prefetched(system: System, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    sleep = tasks_of(system)["sample.sleep"]
    system.worker(*ONE, "worker_prefetch_multiplier=10")
    jobs = sleep.enqueue_many([(10, str(ledger))] * 2)
    wait_until(lambda: words(ledger))
    system.worker(*ONE)
    wait_until(lambda: words(ledger) == ["start", "start"])
    for job in jobs:
        job.cancel()


def test_order_of_a_priority_is_kept(system: System, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    write = tasks_of(system)["sample.note"]
    later = write.options(priority=5)
    for n in range(300):
        (write if n % 3 == 0 else later).delay(str(ledger), f"n{n}")
    expected = [f"n{n}" for n in range(300) if n % 3 == 0]
    expected += [f"n{n}" for n in range(300) if n % 3]
    system.worker(*ONE)
    wait_until(lambda: len(words(ledger)) == 300)
    assert words(ledger) == expected


def test_most_tasks_of_a_process_are_counted_one_by_one(system: System, tmp_path: Path) -> None:
    tasks = tasks_of(system)
    worker = system.worker(*ONE, "--max-tasks-per-child", "20")
    seen: set[int] = set()
    for job in tasks["sample.add"].enqueue_many([(n,) for n in range(100)]):
        seen |= set(children(worker.popen.pid))
        assert job.get(timeout=20)
    assert len(seen) >= 3


@pytest.mark.parametrize("task", ["die", "leave"])
def test_process_that_ends_takes_no_other_job_with_it(
    system: System, tmp_path: Path, task: str
) -> None:
    """Of a task that nobody knows yet, or that was lost before: it has a process of its own."""
    ledger, bad = tmp_path / "ledger", tmp_path / "bad"
    tasks = tasks_of(system)
    worker = system.worker(*ONE, OFFLOAD_MAX_DELIVERIES="2")
    for job in tasks["sample.note"].enqueue_many([(str(tmp_path / "warm"), "x")] * 60):
        job.get(timeout=20)
    engine = tasks["sample.note"].app.engine
    with engine.together():
        jobs = [tasks["sample.note"].delay(str(ledger), f"n{n}") for n in range(20)]
        job = tasks[f"sample.{task}"].delay(str(bad))
        jobs += [tasks["sample.note"].delay(str(ledger), f"n{n}") for n in range(20, 40)]
    for other in jobs:
        other.get(timeout=20)
    wait_until(lambda: job.record.state is JobState.DEAD, 20, message=lambda: worker.text)
    assert words(bad) == ["start"] * 2
    assert Counter(words(ledger)) == Counter(f"n{n}" for n in range(40))


def test_connection_that_is_lost_loses_nothing_of_a_bundle(
    make_system: t.Callable[..., System], own_valkey: servers.Valkey, tmp_path: Path
) -> None:
    system = make_system(own_valkey.url)
    sleep = tasks_of(system)["sample.sleep"]
    system.worker(*ONE)
    slow, rest = bundle_with_a_slow_one(sleep, tmp_path / "ledger", before=10)
    with own_valkey.client() as client:
        for kind in ("normal", "pubsub"):
            client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    for job in (slow, *rest):
        assert job.get(timeout=20) == "slept"
    assert {job.record.starts for job in (slow, *rest)} == {1}
    assert words(tmp_path / "ledger").count("start") == len(rest)


@pytest.mark.parametrize(
    ("name", "state", "error"),
    [
        ("unserializable", JobState.FAILED, "EncodeError"),
        ("rejected", JobState.FAILED, "Reject"),
        ("ignored", JobState.SUCCEEDED, ""),
        ("quiet", JobState.SUCCEEDED, ""),
        ("parent", JobState.SUCCEEDED, ""),
    ],
)
def test_what_came_of_each_of_a_bundle(
    system: System, name: str, state: JobState, error: str
) -> None:
    task = tasks_of(system)[f"sample.{name}"]
    worker = system.worker(*ONE)
    for count in (1, 60):  # One to be known, then many.
        jobs = task.enqueue_many([()] * count)
        for job in jobs:
            wait_until(lambda job=job: job.record.state is state, 20, message=lambda: worker.text)  # type: ignore[misc]
        assert {(job.record.starts, job.record.error_type) for job in jobs} == {(1, error)}


def test_events_tell_of_each_job(system: System) -> None:
    add = tasks_of(system)["sample.add"]
    system.worker(*ONE, "--task-events")
    heard: dict[str, set[str]] = defaultdict(set)
    results = {}
    with add.app.connection_for_read() as connection:

        def note(event: dict[str, t.Any]) -> None:
            heard[event["type"]].add(event.get("uuid", ""))
            if event["type"] == "task-succeeded":
                results[event["uuid"]] = event["result"]

        receiver = add.app.events.Receiver(connection, handlers={"*": note})
        with receiver.consumer_context() as (drained, _, _):
            while not heard["worker-heartbeat"]:  # It is subscribed by then.
                drained.drain_events(timeout=20)
            jobs = {job.id for job in add.enqueue_many([(n,) for n in range(60)])}
            while not jobs <= heard["task-succeeded"]:
                drained.drain_events(timeout=20)
    # A job may be received twice: what a bundle keeps waiting for too long is given back.
    assert jobs == heard["task-received"] == heard["task-started"] == heard["task-succeeded"]
    assert sorted(results.values(), key=int) == [str(n + 1) for n in range(60)]


def test_pool_grows_with_what_waits(system: System, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    sleep = tasks_of(system)["sample.sleep"]
    system.worker("--pool", "prefork", "--autoscale", "3,1")
    jobs = sleep.enqueue_many([(2, str(ledger))] * 3)
    wait_until(lambda: words(ledger).count("start") == 3, 20)
    assert words(ledger).count("end") < 3
    for job in jobs:
        assert job.get(timeout=20) == "slept"
