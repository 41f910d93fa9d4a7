"""The line of jobs: order, leases, fences, what cannot be run."""

from __future__ import annotations

import json
import time
import typing as t
from pathlib import Path

import pytest

import servers
from flask_offload import EnqueueError, JobState
from flask_offload._store import Deadline, NewJob, Store
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System


@pytest.fixture
def system(make_system: t.Callable[..., System], server: servers.Valkey) -> System:
    return make_system(server.url, OFFLOAD_LEASE="2")


@pytest.fixture
def store(system: System) -> Store:
    store: Store = system.app().extensions["offload"].celery.store
    return store


def put(store: Store, job_id: str, queue: str = "celery", **fields: t.Any) -> str:
    job = NewJob(id=job_id, task="app.work", queue=queue, **fields)
    envelope = json.dumps({"id": job_id})
    state = JobState.SCHEDULED if job.delay else JobState.QUEUED
    deadline = Deadline.after(2)
    return store.enqueue(job, state=state, envelope=envelope, deadline=deadline)[1]


def take(store: Store, count: int = 100, *queues: str) -> list[str]:
    return [found.job_id for found in store.fetch("w", queues or ["celery"], count).jobs]


# -- the line


def test_order_is_by_priority_then_arrival(store: Store) -> None:
    for name, priority in [("a", 5), ("b", 0), ("c", 9), ("d", 0), ("e", 5)]:
        put(store, name, priority=priority)
    assert [store.position(name) for name in "bdaec"] == [1, 2, 3, 4, 5]
    assert store.size("celery") == 5
    assert take(store, 2) == ["b", "d"]
    assert store.position("b") is None
    assert take(store) == ["a", "e", "c"]
    assert take(store) == []


def test_delayed_job_lines_up_when_it_is_due(store: Store) -> None:
    put(store, "later", delay=0.3)
    put(store, "now")
    assert take(store) == ["now"]
    assert store.get("later").state is JobState.SCHEDULED
    wait_until(lambda: take(store) == ["later"])
    assert store.get("later").state is JobState.QUEUED


def test_paused_queue_hands_out_nothing(store: Store) -> None:
    put(store, "a")
    put(store, "b", queue="other")
    store.pause("celery")
    assert take(store, 10, "celery", "other") == ["b"]
    store.resume("celery")
    assert take(store) == ["a"]


def test_purge_cancels_what_waits_and_nothing_else(store: Store) -> None:
    for name in ("a", "b", "c"):
        put(store, name)
    assert take(store, 1) == ["a"]
    assert store.purge("celery") == 2
    assert [store.get(name).state.value for name in "abc"] == ["queued", "cancelled", "cancelled"]


def test_unique_is_tied_to_the_life_of_its_job(store: Store) -> None:
    assert put(store, "first", unique="report") == "first"
    assert put(store, "second", unique="report") == "first"
    assert put(store, "other", unique="else") == "other"
    store.finish("first", "succeeded", "{}", {})
    assert put(store, "third", unique="report") == "third"
    # A record that is gone, however that came about, locks nobody out.
    store.call("DEL", store.keys.job("third"))
    assert put(store, "fourth", unique="report") == "fourth"


def test_cancel_takes_a_job_out_of_the_line_at_once(store: Store) -> None:
    put(store, "a")
    put(store, "later", delay=60)
    for name in ("a", "later"):
        store.cancel(name, "me", "{}")
    assert store.size("celery") == 0
    assert store.call("ZCARD", f"{store.keys.prefix}scheduled") == 0
    assert take(store) == []


def test_enqueue_that_arrives_too_late_is_refused(store: Store) -> None:
    """What a hung server finds in its buffers when it wakes up."""
    store._clock = (0.0, time.monotonic())  # its clock is far ahead of what we think
    assert put(store, "a") == "a"
    assert store._clock is not None
    assert store._clock[0] > 1_000_000_000


# -- leases and fences


def test_lost_lease_comes_back_in_its_old_place_and_fences_off_the_old_holder(store: Store) -> None:
    first, second = (NewJob(id=name, task="app.work") for name in "ab")
    put(store, "a")
    put(store, "b")
    (old,) = store.fetch("one", ["celery"], 1).jobs
    assert store.start(first, worker="one", max_deliveries=5, fence=old.fence).verdict == "run"
    assert store.extend({"a": old.fence}) == ([], [])
    store.call("ZADD", f"{store.keys.prefix}leases", 1, "a")  # the lease runs out
    new, other = store.fetch("two", ["celery"], 2).jobs
    assert (new.job_id, other.job_id) == ("a", "b")
    assert new.fence > old.fence
    assert store.extend({"a": old.fence}) == (["a"], [])
    assert store.finish("a", "succeeded", "{}", {}, fence=old.fence) == -1
    assert store.progress("a", None, [(1, "late")], fence=old.fence) == -1
    assert store.start(first, worker="one", max_deliveries=5, fence=old.fence).verdict == "drop"
    assert not store.release("a", old.fence)
    assert store.start(first, worker="two", max_deliveries=5, fence=new.fence).verdict == "run"
    assert store.finish("a", "succeeded", "{}", {}, fence=new.fence) == 1
    assert store.extend({"a": new.fence}) == ([], ["a"])
    assert store.get("a").starts == 2
    assert store.start(second, worker="two", max_deliveries=5, fence=other.fence).verdict == "run"


def test_start_that_is_told_twice_counts_once(store: Store) -> None:
    """By who missed the answer, or by a retry while another thread tells it."""
    job = NewJob(id="a", task="app.work")
    put(store, "a")
    for starts in (1, 2):
        (found,) = store.fetch("w", ["celery"], 1).jobs
        for _ in range(3):
            started = store.start(job, worker="w", max_deliveries=2, fence=found.fence, ran=0.1)
            assert started.verdict == "run"
        assert store.get("a").starts == starts
        store.release("a", found.fence)
    (found,) = store.fetch("w", ["celery"], 1).jobs
    assert store.start(job, worker="w", max_deliveries=2, fence=found.fence).verdict == "dead"


def test_jobs_that_were_lost_together_twice_come_back_apart(store: Store) -> None:
    """One of them may be what ends its workers, and the others must not die of that."""
    names = ["a", "b", "c"]
    for name in names:
        put(store, name)
    leases = f"{store.keys.prefix}leases"
    for _ in range(2):
        assert take(store) == names
        for name in names:
            store.call("ZADD", leases, 1, name)  # their worker died
    assert take(store) == ["a"]
    assert take(store) == []
    # The lease of the first may run out meanwhile.
    wait_until(lambda: "b" in take(store), 3)
    wait_until(lambda: "c" in take(store), 3)


def test_they_come_back_apart_also_when_two_fetches_find_them(store: Store) -> None:
    names = ["a", "b", "c"]
    for name in names:
        put(store, name)
    leases = f"{store.keys.prefix}leases"
    assert take(store) == names
    for name in names:
        store.call("ZADD", leases, 1, name)
    assert take(store) == names
    store.call("ZADD", leases, 1, "a")
    assert take(store) == ["a"]
    for name in ("b", "c"):
        store.call("ZADD", leases, 1, name)  # the last renewal of theirs was a moment later
    assert take(store) == []
    wait_until(lambda: "b" in take(store), 3)
    wait_until(lambda: "c" in take(store), 3)
    assert store.call("PTTL", f"{store.keys.prefix}apart") > 0


def test_early_ack_is_at_most_once(store: Store) -> None:
    job = NewJob(id="a", task="app.work")
    put(store, "a")
    (found,) = store.fetch("w", ["celery"], 1).jobs
    store.ack("a", found.fence)
    assert store.start(job, worker="w", max_deliveries=5, fence=found.fence).verdict == "run"
    assert store.call("ZCARD", f"{store.keys.prefix}leases") == 0
    assert take(store) == []
    assert store.finish("a", "succeeded", "{}", {}, fence=found.fence) == 1


def test_retry_leaves_nothing_to_the_attempt_before(store: Store) -> None:
    put(store, "a")
    (old,) = store.fetch("w", ["celery"], 1).jobs
    put(store, "a", retries=1)
    store.ack("a", old.fence)
    assert not store.release("a", old.fence)
    (new,) = store.fetch("w", ["celery"], 10).jobs
    assert new.fence > old.fence
    assert take(store) == []


def test_job_longer_than_many_leases_starts_once(system: System, tmp_path: Path) -> None:
    system.env["OFFLOAD_LEASE"] = "1"
    ledger = tmp_path / "ledger"
    tasks = system.app().extensions["offload"].celery.tasks
    system.worker("--pool", "threads")
    system.worker("--pool", "prefork")
    jobs = [tasks["sample.sleep"].delay(6, str(ledger)) for _ in range(4)]
    for job in jobs:
        assert job.get(timeout=30) == "slept"
    assert ledger.read_text().split().count("start") == 4


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_worker_that_was_paused_past_its_lease_is_refused(
    system: System, tmp_path: Path, pool: str
) -> None:
    ledger = tmp_path / "ledger"
    tasks = system.app().extensions["offload"].celery.tasks
    first = system.worker("--pool", pool)
    job = tasks["sample.sleep"].delay(3, str(ledger))
    # What runs for moments only is told with its end: this one is past that.
    wait_until(lambda: job.record.state is JobState.RUNNING)
    first.freeze()
    system.worker("--pool", pool)
    wait_until(lambda: ledger.read_text().split() == ["start", "start"], 20)
    first.thaw()
    assert job.get(timeout=20) == "slept"
    record = job.record
    assert (record.state, record.starts) == (JobState.SUCCEEDED, 2)
    wait_until(lambda: "lease" in first.text)
    assert tasks["sample.add"].delay(1).get(timeout=20) == 2


def test_lost_connections_start_nothing_twice(
    system: System, tmp_path: Path, server: servers.Valkey
) -> None:
    ledger = tmp_path / "ledger"
    tasks = system.app().extensions["offload"].celery.tasks
    system.worker("--pool", "prefork", "--concurrency", "4")
    jobs = [tasks["sample.sleep"].delay(4, str(ledger)) for _ in range(4)]
    wait_until(lambda: ledger.exists() and len(ledger.read_text().split()) == 4)
    with server.client() as client:
        for _ in range(3):
            client.client_kill_filter(skipme=True)
            time.sleep(0.5)  # the fault itself: three cuts, half a second apart
    for job in jobs:
        assert job.get(timeout=30) == "slept"
    assert ledger.read_text().split().count("start") == 4
    assert tasks["sample.add"].delay(1).get(timeout=20) == 2


# -- what cannot be run


def test_unknown_task_waits_for_a_worker_that_knows_it(system: System) -> None:
    state = system.app().extensions["offload"]
    system.worker(SAMPLE_WITHOUT="add")
    job = state.celery.tasks["sample.add"].delay(1)
    wait_until(
        lambda: state.celery.store.call("HGET", state.celery.store.keys.job(job.id), "parked")
    )
    assert job.record.state is JobState.QUEUED
    system.worker()
    assert job.get(timeout=30) == 2
    assert job.record.starts == 1


def test_unknown_task_is_dead_after_the_time_for_it(system: System) -> None:
    system.env["OFFLOAD_PARK_FOR"] = "2"
    celery = system.app().extensions["offload"].celery
    system.worker()
    job = celery.send_task("sample.nobody", args=[1])
    wait_until(lambda: job.record.state is JobState.DEAD, 20)
    assert "OFFLOAD_PARK_FOR" in job.record.error
    assert job.state == "FAILURE"


@pytest.mark.parametrize(
    "envelope",
    [
        "",
        "not json",
        "[]",
        "{}",
        '{"headers": null}',
        json.dumps(
            {"headers": {"id": "x", "task": "sample.add"}, "properties": {}, "body": "e30="}
        ),
        json.dumps(
            {
                "headers": {"id": "bad", "task": "sample.add", "lang": "py"},
                "properties": {"delivery_info": {}, "body_encoding": "base64"},
                "content-type": "application/json",
                "content-encoding": "utf-8",
                "body": "AAAA",
            }
        ),
        json.dumps(
            {
                "headers": {"id": "bad", "task": "sample.add", "lang": "py"},
                "properties": {"delivery_info": {}, "body_encoding": "base64"},
                "content-type": "application/x-python-serialize",
                "content-encoding": "binary",
                "body": "gASVAAAAAAAAAAB9lC4=",
            }
        ),
    ],
)
def test_unreadable_message_is_dead_and_the_worker_lives(system: System, envelope: str) -> None:
    state = system.app().extensions["offload"]
    store = state.celery.store
    store.call("HSET", store.keys.job("bad"), "state", "queued", "task", "sample.add",
               "queue", "celery", "envelope", envelope)  # fmt: skip
    store.call("ZADD", store.keys.queue("celery"), 1, "bad")
    worker = system.worker()
    wait_until(lambda: store.get("bad").state.finished, 20, message=lambda: worker.text)
    assert store.get("bad").state in (JobState.DEAD, JobState.FAILED)
    assert store.call("HGET", store.keys.job("bad"), "envelope") == envelope
    assert state.celery.tasks["sample.add"].delay(1).get(timeout=20) == 2
    assert worker.popen.poll() is None


def test_entry_without_a_record_and_record_of_a_wrong_type(system: System) -> None:
    state = system.app().extensions["offload"]
    store = state.celery.store
    store.call("ZADD", store.keys.queue("celery"), 1, "nothing", 2, "list")
    store.call("RPUSH", store.keys.job("list"), "raw")
    system.worker()
    assert state.celery.tasks["sample.add"].delay(1).get(timeout=20) == 2
    assert store.get("nothing").state is JobState.DEAD
    assert store.get("list").state is JobState.DEAD
    assert store.call("LRANGE", f"{store.keys.job('list')}:raw", 0, -1) == ["raw"]


def test_server_that_hangs_does_not_run_what_was_refused(
    make_system: t.Callable[..., System], own_valkey: servers.Valkey, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    system = make_system(own_valkey.url)
    tasks = system.app(OFFLOAD_PUBLISH_TIMEOUT=1).extensions["offload"].celery.tasks
    tasks["sample.add"].delay(1)
    own_valkey.pause()
    with pytest.raises(EnqueueError):
        tasks["sample.sleep"].delay(0, str(ledger))
    own_valkey.resume()
    system.worker()
    assert tasks["sample.add"].delay(2).get(timeout=20) == 3
    assert not ledger.exists()
