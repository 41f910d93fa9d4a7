"""Workers that are killed, stopped or lost."""

from __future__ import annotations

import os
import signal
import time
import typing as t
from pathlib import Path

import pytest

from flask_offload import JobState
from waiting import wait_until

if t.TYPE_CHECKING:
    import servers
    from conftest import System

POOLS = pytest.mark.parametrize("pool", ["prefork", "threads"])


def words(ledger: Path) -> list[str]:
    return ledger.read_text().split() if ledger.exists() else []


def test_enqueue_without_a_worker_waits_for_one(system: System) -> None:
    state = system.app().extensions["offload"]
    job = state.celery.tasks["sample.add"].delay(1)
    assert state.control.waiting(job.record).reason == "none"
    system.worker("-Q", "other")
    wait_until(lambda: state.control.waiting(job.record).reason == "queue")
    system.worker()
    assert job.get(timeout=20) == 2


def test_presence_ends_with_a_stop(system: System) -> None:
    control = system.app().extensions["offload"].control
    worker = system.worker()
    (info,) = control.workers()
    assert info.queues == ("celery",)
    assert "sample.add" in info.tasks
    worker.stop()
    assert control.workers() == []


@POOLS
def test_killed_worker_loses_nothing(system: System, tmp_path: Path, pool: str) -> None:
    """The job is handed out again after the lease: here, 2 seconds."""
    system.env["OFFLOAD_LEASE"] = "2"
    ledger = tmp_path / "ledger"
    state = system.app().extensions["offload"]
    worker = system.worker("--pool", pool)
    job = state.celery.tasks["sample.sleep"].delay(1.5, str(ledger))
    wait_until(lambda: words(ledger) == ["start"])
    wait_until(lambda: job.record.state is JobState.RUNNING)
    worker.kill()
    # The page can tell, once the worker's presence has run out.
    wait_until(lambda: state.control.waiting(job.record).reason == "lost", 15)
    assert job.record.state is JobState.RUNNING
    system.worker("--pool", pool)
    assert job.get(timeout=40) == "slept"
    assert words(ledger) == ["start", "start", "end"]
    assert (job.record.deliveries, job.record.starts) == (2, 2)


def test_killed_child_is_replaced_and_the_job_runs_again_until_it_is_dead(
    system: System, tmp_path: Path
) -> None:
    system.env["OFFLOAD_MAX_DELIVERIES"] = "3"
    ledger = tmp_path / "ledger"
    state = system.app().extensions["offload"]
    system.worker("--pool", "prefork")
    job = state.celery.tasks["sample.die"].delay(str(ledger))
    wait_until(lambda: job.record.state.finished, 60, message=lambda: repr(job.record))
    assert (job.record.state, job.state) == (JobState.DEAD, "FAILURE")
    assert words(ledger) == ["start"] * 3
    assert "OFFLOAD_MAX_DELIVERIES" in job.record.error
    assert state.celery.tasks["sample.add"].delay(1).get(timeout=20) == 2


@POOLS
def test_stop_lets_a_short_job_finish(system: System, tmp_path: Path, pool: str) -> None:
    ledger = tmp_path / "ledger"
    state = system.app().extensions["offload"]
    worker = system.worker("--pool", pool)
    job = state.celery.tasks["sample.sleep"].delay(2, str(ledger))
    wait_until(lambda: words(ledger) == ["start"])
    assert worker.stop() == 0
    assert job.record.state is JobState.SUCCEEDED
    system.worker("--pool", pool)
    assert state.celery.tasks["sample.add"].delay(1).get(timeout=20) == 2
    assert words(ledger) == ["start", "end"]


@POOLS
def test_stop_gives_back_what_outlasts_the_grace(system: System, tmp_path: Path, pool: str) -> None:
    ledger = tmp_path / "ledger"
    state = system.app().extensions["offload"]
    worker = system.worker("--pool", pool, "--concurrency", "1", OFFLOAD_GRACE="1")
    long = state.celery.tasks["sample.sleep"].delay(30, str(ledger))
    delayed = state.celery.tasks["sample.add"].options(delay=4).delay(1)
    wait_until(lambda: words(ledger) == ["start"])
    started = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - started < 6
    assert long.record.state is JobState.QUEUED
    assert long.record.deliveries == 0
    # Nothing waits for the visibility timeout of an hour.
    system.worker("--pool", pool, "--concurrency", "2")
    wait_until(lambda: words(ledger) == ["start", "start"])
    assert delayed.get(timeout=20) == 2
    long.cancel()


@POOLS
def test_stop_under_load_starts_nothing_twice(system: System, tmp_path: Path, pool: str) -> None:
    """Neither what waits in the worker, nor what its pool is about to start."""
    ledger = tmp_path / "ledger"
    write = system.app().extensions["offload"].celery.tasks["sample.note"]
    jobs = write.enqueue_many([(str(ledger), f"n{n}") for n in range(1_500)])
    arguments = ("--pool", pool, "--concurrency", "2")
    for _ in range(4):
        worker = system.worker(*arguments)
        seen = len(words(ledger))
        wait_until(lambda seen=seen: len(words(ledger)) > seen + 5)  # type: ignore[misc]
        assert worker.stop() == 0
    system.worker(*arguments)
    for job in jobs:
        job.get(timeout=30)
    assert sorted(words(ledger)) == sorted(f"n{n}" for n in range(1_500))


def test_what_waits_in_the_pool_survives_a_lost_connection(
    make_system: t.Callable[..., System], own_valkey: servers.Valkey, tmp_path: Path
) -> None:
    """Celery forgets it, because brokers deliver it again; here the lease would be renewed."""
    ledger = tmp_path / "ledger"
    system = make_system(own_valkey.url)
    sleep = system.app().extensions["offload"].celery.tasks["sample.sleep"]
    jobs = [sleep.delay(2, str(ledger)), *sleep.enqueue_many([(0, str(ledger))] * 5)]
    system.worker("--pool", "prefork", "--concurrency", "1", "--prefetch-multiplier", "4")
    wait_until(lambda: words(ledger) == ["start"])
    with own_valkey.client() as client:
        for kind in ("normal", "pubsub"):
            client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    for job in jobs:
        assert job.get(timeout=20) == "slept"
    assert words(ledger).count("start") == len(jobs)


def test_cancelled_while_no_worker_is_up_never_runs(system: System, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    tasks = system.app().extensions["offload"].celery.tasks
    job = tasks["sample.sleep"].delay(0, str(ledger))
    job.cancel()
    system.worker()
    assert tasks["sample.add"].delay(1).get(timeout=20) == 2
    assert words(ledger) == []
    assert job.record.state is JobState.CANCELLED


def test_cancel_survives_the_death_of_the_worker(system: System, tmp_path: Path) -> None:
    system.env["OFFLOAD_LEASE"] = "2"
    ledger = tmp_path / "ledger"
    app = system.app()
    tasks = app.extensions["offload"].celery.tasks
    worker = system.worker("--pool", "threads")
    job = tasks["sample.sleep"].delay(60, str(ledger))
    wait_until(lambda: words(ledger) == ["start"])
    job.cancel()
    worker.kill()
    control = app.extensions["offload"].control
    wait_until(lambda: control.waiting(job.record).reason == "lost", 15)
    system.worker("--pool", "threads")
    wait_until(lambda: job.record.state is JobState.CANCELLED, 60)
    assert words(ledger) == ["start"]


def test_pool_child_killed_from_outside_runs_again_at_once(system: System, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    tasks = system.app().extensions["offload"].celery.tasks
    worker = system.worker("--pool", "prefork", "--concurrency", "1")
    job = tasks["sample.sleep"].delay(2, str(ledger))
    wait_until(lambda: words(ledger) == ["start"])
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    if not children.exists():
        pytest.skip("needs /proc to find the pool's child")
    for pid in children.read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    assert job.get(timeout=30) == "slept"
    assert words(ledger) == ["start", "start", "end"]


def test_expired_records_leave_no_key_and_no_file(system: System, tmp_path: Path) -> None:
    app = system.app()
    state = app.extensions["offload"]
    system.env["OFFLOAD_FILES_URL"] = str(tmp_path / "files")
    app = system.app(OFFLOAD_RETENTION=1)
    short = app.extensions["offload"]
    system.worker()
    with app.test_request_context():
        job = state.celery.tasks["sample.attach"].delay("a.txt", "text")
    job.get(timeout=20)
    assert list((tmp_path / "files").rglob("a.txt"))
    # The worker keeps to its own settings (a day); this app's are a second.
    with app.test_request_context():
        brief = short.celery.tasks["sample.add"].delay(1)
    brief.get(timeout=20)
    store = short.celery.store
    for name in (job.id, brief.id):
        store.call("PEXPIRE", store.keys.job(name), 1)
        store.call("ZADD", f"{store.keys.prefix}expiry", 1, f'{name}\n["c:x"]')
    wait_until(lambda: not list((tmp_path / "files").rglob("a.txt")), 15)
    assert store.call("ZCARD", store.keys.jobs) == 0
    assert store.call("EXISTS", store.keys.result(job.id), store.keys.log(job.id)) == 0
