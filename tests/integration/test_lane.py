"""The lane of a worker whose pool is threads, or solo: quick jobs in batches, slow ones not."""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

import pytest

from flask_offload import JobState
from waiting import wait_until

if t.TYPE_CHECKING:
    import servers
    from conftest import System

POOLS = pytest.mark.parametrize("pool", ["threads", "solo"])


def tasks_of(system: System) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", system.app().extensions["offload"].celery.tasks)


def test_quick_jobs_do_not_sit_behind_slow_ones(system: System) -> None:
    tasks = tasks_of(system)
    system.worker("--pool", "threads", "--concurrency", "4")
    for job in tasks["sample.add"].enqueue_many([(n,) for n in range(20)]):
        assert job.get(timeout=20)
    slow = [tasks["sample.sleep"].delay(4) for _ in range(3)]
    quick = tasks["sample.add"].enqueue_many([(n,) for n in range(50)])
    for job in quick:
        job.get(timeout=20)
    assert not any(job.ready() for job in slow)
    assert max(job.record.starts for job in quick) == 1


@POOLS
def test_what_waits_behind_a_job_that_turns_out_slow_is_given_back(
    system: System, tmp_path: Path, pool: str
) -> None:
    """The task is known to be quick, so that a batch of it was taken; then one is slow."""
    ledger = tmp_path / "ledger"
    tasks = tasks_of(system)
    sleep = tasks["sample.sleep"]
    first = system.worker("--pool", pool, "--concurrency", "1")
    for job in sleep.enqueue_many([(0,)] * 30):
        job.get(timeout=20)
    (slow, *rest) = sleep.enqueue_many([(6, str(ledger)), *[(0,)] * 20])
    wait_until(ledger.exists)
    system.worker("--pool", pool, "--concurrency", "1")
    for job in rest:
        assert job.get(timeout=20) == "slept"
    assert not slow.ready()
    assert [job.record.starts for job in rest] == [1] * len(rest)
    assert slow.get(timeout=20) == "slept"
    assert slow.record.starts == 1
    assert first.popen.poll() is None


def test_what_waits_behind_a_job_that_turns_out_slow_goes_to_another_thread(
    system: System, tmp_path: Path
) -> None:
    """One thread runs what is quick, and has asked for more by then."""
    ledger = tmp_path / "ledger"
    sleep = tasks_of(system)["sample.sleep"]
    system.worker("--pool", "threads", "--concurrency", "2")
    for job in sleep.enqueue_many([(0,)] * 300):
        job.get(timeout=20)
    quick = [(0,)] * 300
    jobs = sleep.enqueue_many([*quick, (8, str(ledger)), *quick])
    slow = jobs.pop(300)
    for job in jobs:
        assert job.get(timeout=20) == "slept"
    assert not slow.ready()
    # Its end and the ends of those before it did not wait for it either, nor did a new one.
    assert sleep.delay(0).get(timeout=5) == "slept"
    assert not slow.ready()
    assert max(job.record.starts for job in jobs) == 1
    assert slow.get(timeout=20) == "slept"


def test_a_job_that_was_thought_brief_keeps_nobody_waiting(system: System, tmp_path: Path) -> None:
    """No other thread was sent to wait for the next job as it started."""
    sleep = tasks_of(system)["sample.sleep"]
    system.worker("--pool", "threads", "--concurrency", "2")
    waited = []
    for number in range(5):
        for _ in range(100):
            sleep.delay(0.0005).get(timeout=20)
        ledger = tmp_path / f"ledger{number}"
        slow = sleep.delay(1.5, str(ledger))
        wait_until(ledger.exists)
        started = time.monotonic()
        assert sleep.delay(0.0005).get(timeout=20) == "slept"
        waited.append(time.monotonic() - started)
        assert slow.get(timeout=20) == "slept"
        assert slow.record.starts == 1
    # The event loop of the worker would notice within a second.
    assert sorted(waited)[2] < 0.3, waited


@POOLS
def test_connections_that_are_lost_lose_and_repeat_nothing(
    system: System, tmp_path: Path, pool: str
) -> None:
    """Neither what the server was asked for ahead, nor what it was told of."""
    ledger = tmp_path / "ledger"
    write = tasks_of(system)["sample.note"]
    jobs = write.enqueue_many([(str(ledger), f"n{n}") for n in range(3_000)])
    system.worker("--pool", pool, "--concurrency", "2", OFFLOAD_LEASE="2")
    store = system.app().extensions["offload"].control.store
    for at in (300, 1_000, 1_700):
        wait_until(lambda at=at: ledger.exists() and len(ledger.read_text().split()) > at, 20)
        store.call("CLIENT", "KILL", "TYPE", "normal")
    for job in jobs:
        job.get(timeout=30)
    assert sorted(ledger.read_text().split()) == sorted(f"n{n}" for n in range(3_000))
    assert {job.record.starts for job in jobs} == {1}


@POOLS
def test_results_wait_for_a_server_that_is_away(
    make_system: t.Callable[..., System], own_valkey: servers.Valkey, tmp_path: Path, pool: str
) -> None:
    ledger = tmp_path / "ledger"
    system = make_system(own_valkey.url)
    tasks = tasks_of(system)
    system.worker("--pool", pool, "--concurrency", "2")
    job = tasks["sample.sleep"].delay(0.5, str(ledger))
    wait_until(lambda: job.record.state is JobState.RUNNING)
    own_valkey.pause()
    wait_until(lambda: ledger.read_text().split() == ["start", "end"])
    own_valkey.resume()
    wait_until(lambda: job.record.state is JobState.SUCCEEDED)
    assert job.record.starts == 1
    assert ledger.read_text().split() == ["start", "end"]


def test_limit_of_a_rate_that_comes_later_is_kept(system: System, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    write = tasks_of(system)["sample.note"]
    system.worker("--pool", "threads", "--concurrency", "4")
    write.delay(str(ledger), "before").get(timeout=20)
    (answer,) = write.app.control.rate_limit("sample.note", "2/s", reply=True)
    assert "ok" in next(iter(answer.values()))
    started = time.monotonic()
    for job in write.enqueue_many([(str(ledger), "x")] * 6):
        job.get(timeout=20)
    assert time.monotonic() - started > 1.5


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_record_that_was_overwritten_is_in_nobodys_way(
    system: System, tmp_path: Path, pool: str
) -> None:
    """The result of its job has no place; those of the others have."""
    ledger = tmp_path / "ledger"
    app = system.app()
    state = app.extensions["offload"]
    sleep = state.celery.tasks["sample.sleep"]
    worker = system.worker("--pool", pool, "--concurrency", "2")
    job = sleep.delay(1, str(ledger))
    wait_until(ledger.exists)
    wait_until(lambda: job.record.state is JobState.RUNNING)
    store = state.control.store
    key = store.keys.job(job.id)
    store.call("DEL", key)
    store.call("SET", key, "what is this")
    wait_until(lambda: "refused a command" in worker.text, message=lambda: worker.text)
    for other in sleep.enqueue_many([(0,)] * 5):
        assert other.get(timeout=20) == "slept"
    assert worker.popen.poll() is None


def test_stop_drains_what_was_taken(system: System, tmp_path: Path) -> None:
    """Nothing that was started is started again, and nothing is lost."""
    ledger = tmp_path / "ledger"
    write = tasks_of(system)["sample.note"]
    for job in write.enqueue_many([(str(ledger), "warm")] * 30):
        assert job
    worker = system.worker("--pool", "threads", "--concurrency", "2")
    jobs = write.enqueue_many([(str(ledger), f"n{n}") for n in range(3_000)])
    wait_until(lambda: "n100" in ledger.read_text())
    assert worker.stop() == 0
    done = ledger.read_text().split().count
    assert done("n2999") == 0
    system.worker("--pool", "threads", "--concurrency", "2")
    for job in jobs:
        job.get(timeout=30)
    words = [word for word in ledger.read_text().split() if word != "warm"]
    assert sorted(words) == sorted(f"n{n}" for n in range(3_000))


@POOLS
def test_task_that_exits_is_dead_at_the_limit(system: System, tmp_path: Path, pool: str) -> None:
    """In threads nobody else would hear of it, and its lease would be renewed for ever."""
    ledger = tmp_path / "ledger"
    tasks = tasks_of(system)
    worker = system.worker("--pool", pool, OFFLOAD_MAX_DELIVERIES="2")
    job = tasks["sample.leave"].delay(str(ledger))
    wait_until(lambda: job.record.state is JobState.DEAD, 20, message=lambda: worker.text)
    assert ledger.read_text().split() == ["start"] * 2
    assert tasks["sample.add"].delay(1).get(timeout=20) == 2


def test_cancelled_before_its_start_was_told(system: System, tmp_path: Path) -> None:
    """A job that is about to run is stopped as one that runs."""
    ledger = tmp_path / "ledger"
    tasks = tasks_of(system)
    worker = system.worker("--pool", "threads", "--concurrency", "1")
    spin = tasks["sample.spin"].delay(str(ledger), 20)
    wait_until(ledger.exists)
    spin.cancel()
    wait_until(
        lambda: spin.record.state is JobState.CANCELLED,
        message=lambda: f"{spin.record} {worker.text}",
    )
    assert tasks["sample.add"].delay(1).get(timeout=20) == 2


def test_a_person_who_looks_sees_the_same(system: System) -> None:
    tasks = tasks_of(system)
    celery = tasks["sample.sleep"].app
    worker = system.worker("--pool", "threads", "--concurrency", "2")
    job = tasks["sample.sleep"].delay(3)
    wait_until(lambda: job.record.state is JobState.RUNNING)
    (active,) = celery.control.inspect(timeout=2).active().values()
    assert [(one["id"], one["name"]) for one in active] == [(job.id, "sample.sleep")]
    stats = next(iter(celery.control.inspect(timeout=2).stats().values()))
    assert stats["total"] == {"sample.sleep": 1}
    assert job.get(timeout=20) == "slept"
    wait_until(lambda: f"Task sample.sleep[{job.id}] succeeded in" in worker.text)
    assert f"Task sample.sleep[{job.id}] received" in worker.text
    assert celery.AsyncResult(job.id).info == "slept"


@POOLS
def test_forked_child_that_ends_gives_back_nothing_of_its_parents(
    system: System, tmp_path: Path, pool: str
) -> None:
    tasks = tasks_of(system)
    fork, add = tasks["sample.fork"], tasks["sample.add"]
    worker = system.worker("--pool", pool, "--concurrency", "1")
    for name in (add, fork):
        for job in name.enqueue_many([(1,) if name is add else ()] * 20):
            job.get(timeout=20)
    with add.app.engine.together():
        jobs = [
            task.delay(*args) for _ in range(10) for task, args in ((fork, ()), *[(add, (1,))] * 20)
        ]
    for job in jobs:
        job.get(timeout=20)
    assert {job.record.starts for job in jobs} == {1}, worker.text
    assert "another worker's by now" not in worker.text
