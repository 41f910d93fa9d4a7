"""The scripts, on every server that they must run on."""

from __future__ import annotations

import secrets
import threading
import time
import typing as t
from pathlib import Path

import pytest

import servers
from flask_offload import JobNotFound, JobState, Progress
from flask_offload._config import Settings
from flask_offload._store import Deadline, Feed, NewJob, Store, StoreUnavailable, WorkerInfo
from waiting import wait_until


@pytest.fixture
def store(server: servers.Valkey) -> t.Iterator[Store]:
    settings = Settings(
        directory=Path("/nowhere"),
        files_url="memory://",
        namespace=f"t{secrets.token_hex(4)}",
        max_log_lines=10,
    )
    store = Store(server.url, settings)
    yield store
    store.connections.close()


def new(store: Store, job_id: str = "a", **fields: t.Any) -> NewJob:
    job = NewJob(id=job_id, task="app.work", owners=("c:1", "u:[x] y"), **fields)
    state = JobState.SCHEDULED if job.delay else JobState.QUEUED
    assert enqueue(store, job, state) in {"created", "again"}
    return job


def enqueue(store: Store, job: NewJob, state: JobState, confirm_within: float = 0) -> str:
    deadline = Deadline.after(5)
    return store.enqueue(job, state=state, confirm_within=confirm_within, deadline=deadline)[0]


def start(store: Store, job: NewJob, limit: int = 5) -> str:
    return store.start(job, worker="w", max_deliveries=limit).verdict


def test_life_of_a_job(store: Store) -> None:
    job = new(store, args='["x"]', title="Work")
    assert store.get("a").state is JobState.QUEUED
    assert start(store, job) == "run"
    assert store.progress("a", Progress(1, 4, "Reading"), [(1.5, "one"), (2.5, "two")]) == 0
    assert store.get("a").progress == Progress(1, 4, "Reading")
    assert [(line.seq, line.at, line.text) for line in store.logs("a")] == [
        (1, 1.5, "one"),
        (2, 2.5, "two"),
    ]
    assert store.finish("a", "succeeded", '{"result": {"n": 1}}', {})
    record = store.get("a")
    assert (record.state, record.result) == (JobState.SUCCEEDED, {"n": 1})
    assert store.progress("a", Progress(2, 4), []) == -1
    assert not store.finish("a", "failed", '{"result": null}', {"error": "late"})
    assert store.get("a").state is JobState.SUCCEEDED
    assert start(store, job) == "drop"
    assert [r.id for r in store.newest(owner="u:[x] y")] == ["a"]
    assert store.newest(owner="c:2") == []


def test_enqueue_is_idempotent_and_a_retry_is_a_newer_attempt(store: Store) -> None:
    job = new(store)
    assert enqueue(store, job, JobState.QUEUED) == "exists"
    assert start(store, job) == "run"
    again = NewJob(id="a", task="app.work", retries=1, delay=5)
    assert enqueue(store, again, JobState.RETRYING) == "again"
    record = store.get("a")
    assert (record.state, record.attempt) == (JobState.RETRYING, 2)
    assert record.due_at is not None
    # Nothing of the attempt before can touch it any more.
    assert start(store, job) == "drop"
    assert not store.finish("a", "succeeded", "{}", {}, attempt=(0, 0))
    assert enqueue(store, job, JobState.QUEUED) == "exists"
    assert start(store, again) == "run"
    assert store.finish("a", "succeeded", "{}", {}, attempt=(0, 1))
    assert store.get("a").starts == 2


def test_unconfirmed_enqueue_waits_then_is_void(store: Store) -> None:
    job = NewJob(id="a", task="app.work")
    deadline = Deadline.after(5)
    enqueue(store, job, JobState.QUEUED, 30)
    assert start(store, job) == "wait"
    assert store.confirm("a", deadline)
    assert start(store, job) == "run"

    other = NewJob(id="b", task="app.work")
    enqueue(store, other, JobState.QUEUED, 0.05)
    wait_until(lambda: start(store, other) == "drop")
    assert not store.confirm("b", deadline)
    assert store.get("b").error_type == "EnqueueError"

    third = NewJob(id="c", task="app.work")
    enqueue(store, third, JobState.QUEUED, 30)
    store.refuse("c", "no broker")
    assert start(store, third) == "drop"
    assert not store.confirm("c", deadline)


def test_retry_that_never_reached_the_broker_is_taken_back(store: Store) -> None:
    job = new(store)
    assert start(store, job) == "run"
    again = NewJob(id="a", task="app.work", retries=1)
    enqueue(store, again, JobState.RETRYING, 0.1)
    assert start(store, job) == "wait"
    # Its worker died: the message of the first attempt comes back, and carries on.
    wait_until(lambda: start(store, job) == "run")
    assert store.get("a").attempt == 1
    assert store.finish("a", "succeeded", "{}", {})


def test_dead_after_too_many_deliveries(store: Store) -> None:
    job = new(store)
    assert [start(store, job, limit=3) for _ in range(4)] == ["run"] * 3 + ["dead"]
    again = new(store, retries=1)
    assert start(store, again, limit=3) == "run"


def test_given_back_at_shutdown_does_not_count(store: Store) -> None:
    job = new(store)
    for _ in range(10):
        assert start(store, job, limit=2) == "run"
        assert store.requeue("a", forgive=True)
    assert store.get("a").starts == 10
    assert store.get("a").deliveries == 0
    assert not store.requeue("a")


def test_cancel(store: Store) -> None:
    job = new(store)
    assert store.cancel("a", "me", '{"status": "REVOKED"}') == (JobState.QUEUED, False)
    assert start(store, job) == "drop"
    running = new(store, "b")
    start(store, running)
    assert store.cancel("b", "me", "{}") == (JobState.RUNNING, True)
    assert store.get("b").state is JobState.RUNNING
    assert store.progress("b", Progress(1), []) == 1
    assert start(store, running) == "cancelled"
    again = NewJob(id="b", task="app.work", retries=1)
    assert enqueue(store, again, JobState.RETRYING) == "cancelled"
    with pytest.raises(JobNotFound):
        store.cancel("nobody", "me", "{}")


def test_message_of_another_client_becomes_a_record(store: Store) -> None:
    job = NewJob(id="foreign", task="app.work", args="[1]")
    assert start(store, job) == "run"
    assert store.get("foreign").args == [1]
    assert [r.id for r in store.newest()] == ["foreign"]


def test_log_is_bounded(store: Store) -> None:
    job = new(store)
    start(store, job)
    for n in range(30):
        store.progress("a", None, [(n, f"line {n}" + "x" * 5000)])
    lines = store.logs("a")
    assert [line.seq for line in lines] == list(range(21, 31))
    assert max(len(line.text) for line in lines) == 2000
    record = store.get("a")
    assert (record.log_lines, record.log_dropped) == (30, 20)
    assert store.logs("a", after=28) == lines[-2:]
    assert store.logs("a", after=30) == []


def test_expired_jobs_leave_no_key(store: Store) -> None:
    settings = Settings(
        directory=Path("/nowhere"),
        files_url="memory://",
        namespace=store.keys.namespace,
        retention=dict.fromkeys(("succeeded", "failed", "cancelled"), 0.05),
    )
    brief = Store(store.connections.url, settings)
    for n in range(5):
        job = new(brief, f"job{n}")
        start(brief, job)
        brief.progress(job.id, Progress(1), [(1, "x")])
        brief.finish(job.id, "succeeded", "{}", {})
    gone: set[str] = set()
    wait_until(lambda: gone.update(brief.prune()) or len(gone) == 5)
    brief.connections.close()
    prefix = store.keys.prefix
    left = {key.removeprefix(prefix) for key in store.call("KEYS", f"{prefix}*")}
    assert {name.partition(":")[0] for name in left} == {"events", "totals", "minute"}


def test_attached_files(store: Store) -> None:
    new(store)
    for size in (1, 2):
        store.attach("a", {"name": "x", "size": size})
    store.attach("a", {"name": "y", "size": 3})
    assert store.get("a").files == ({"name": "x", "size": 2}, {"name": "y", "size": 3})
    with pytest.raises(JobNotFound):
        store.attach("nobody", {"name": "x"})


def test_workers(store: Store) -> None:
    store.beat(WorkerInfo("one", pid=1, queues=("celery", "slow")), 60)
    store.beat(WorkerInfo("two", pid=2), 0.05)
    wait_until(lambda: [w.name for w in store.workers()] == ["one"])
    assert store.workers()[0].queues == ("celery", "slow")
    store.beat(WorkerInfo("one"), 0)
    assert store.workers() == []


def test_feed_misses_nothing(store: Store) -> None:
    """Whoever subscribes and then reads sees the last change, however the two interleave."""
    feed = Feed(store)
    for n in range(50):
        job = new(store, f"job{n}")
        start(store, job)

        def work(job_id: str = job.id) -> None:
            store.progress(job_id, Progress(1), [])
            store.finish(job_id, "succeeded", "{}", {})

        thread = threading.Thread(target=work)
        thread.start()
        with feed.subscribe([job.id]) as subscription:
            record = store.get(job.id)
            while not record.state.finished:
                assert subscription.wait(5), f"missed the end of {record}"
                record = store.get(job.id)
        thread.join()


def test_feed_tells_jobs_apart(store: Store) -> None:
    feed = Feed(store)
    one, two = new(store, "one"), new(store, "two")
    with feed.subscribe(["one"]) as first, feed.subscribe(["one", "two"]) as both:
        first.wait(1), both.wait(1)  # the reader starts by saying that anything may have changed
        start(store, two)
        assert both.wait(5) == {"two"}
        assert first.wait(0.2) == set()
        start(store, one)
        assert first.wait(5) == {"one"}


def test_feed_survives_a_lost_connection(store: Store, server: servers.Valkey) -> None:
    feed = Feed(store)
    job = new(store)
    with feed.subscribe(["a"]) as subscription:
        subscription.wait(1)
        with server.client() as client:
            client.client_kill_filter(skipme=True)
        start(store, job)
        wait_until(lambda: subscription.wait(1) == {"a"})


def test_wrong_password_and_reply_cut(store: Store, server: servers.Valkey) -> None:
    settings = Settings(directory=Path("/nowhere"), files_url="memory://")
    other = Store(server.url.replace("//", "//user:wrong@"), settings)
    with pytest.raises(StoreUnavailable, match="user or password of OFFLOAD_URL"):
        other.call("PING")


def test_deadline_holds_on_a_server_that_hangs() -> None:
    settings = Settings(directory=Path("/nowhere"), files_url="memory://")
    with servers.valkey() as server:
        store = Store(server.url, settings)
        store.call("PING")
        server.pause()
        for _ in range(3):
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                store.call("PING", deadline=Deadline.after(0.5))
            assert 0.4 < time.monotonic() - started < 1.5
        server.resume()
        store.call("PING")
