"""How the threads of a worker hear of jobs: one waits for all, and has asked for a job before
there is one."""

from __future__ import annotations

import json
import threading
import time
import typing as t
from pathlib import Path

import pytest

import servers
from flask_offload import JobState
from flask_offload._store import Bell, Deadline, Fetched, NewJob, Store, StoreUnavailable
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System

LEASE = 30.0
THREADS = ("--pool", "threads", "--concurrency")


@pytest.fixture
def store(make_system: t.Callable[..., System], server: servers.Valkey) -> Store:
    return store_of(make_system(server.url))


def store_of(system: System) -> Store:
    return t.cast("Store", system.app().extensions["offload"].celery.store)


def put(store: Store, job_id: str, **fields: t.Any) -> None:
    job = NewJob(id=job_id, task="app.work", queue="celery", **fields)
    state = JobState.SCHEDULED if job.delay else JobState.QUEUED
    store.enqueue(job, state=state, envelope=json.dumps({"id": job_id}), deadline=Deadline.after(2))


def ask(bell: Bell, store: Store, *queues: str) -> None:
    asked = list(queues) or ["celery"]
    # As a worker does, so that the server knows the script.
    store.fetch("w", ["nothing"], 1)
    bell.ask(asked, store.fetch_command("w", asked, 1))


def due(store: Store) -> int:
    return int(store.call("ZCOUNT", f"{store.keys.prefix}scheduled", "-inf", time.time()))


def soon() -> float:
    return time.monotonic() + 5


def test_answer_is_a_job_and_what_is_due_next(store: Store) -> None:
    bell = Bell(store, LEASE)
    ask(bell, store)
    put(store, "later", delay=60)
    found = bell.hear(soon())
    assert isinstance(found, Fetched)
    assert not found.jobs
    assert found.due_in is not None
    assert 50 < found.due_in <= 60
    ask(bell, store)
    put(store, "a")
    put(store, "b")
    found = bell.hear(soon())
    assert isinstance(found, Fetched)
    assert [job.job_id for job in found.jobs] == ["a"]
    # The second came when the answer was on its way; it rings for whoever asks next.
    ask(bell, store)
    found = bell.hear(soon())
    assert isinstance(found, Fetched)
    assert [job.job_id for job in found.jobs] == ["b"]
    bell.close()


def test_what_was_handed_out_is_taken_back_with_the_question(store: Store) -> None:
    bell = Bell(store, LEASE)
    ask(bell, store)
    put(store, "a")
    (job,) = bell.take_back()
    assert job.job_id == "a"
    assert store.release("a", job.fence, forgive=True)
    # It is there for another one, at once.
    other = Bell(store, LEASE)
    ask(other, store)
    found = other.hear(soon())
    assert isinstance(found, Fetched)
    assert [job.job_id for job in found.jobs] == ["a"]
    other.close()


def test_question_that_is_taken_back_takes_nothing(store: Store) -> None:
    bell, other = Bell(store, LEASE), Bell(store, LEASE)
    ask(bell, store)
    assert bell.take_back() == []
    assert not bell.asked
    ask(other, store)
    put(store, "a")
    found = other.hear(soon())
    assert isinstance(found, Fetched)
    assert [job.job_id for job in found.jobs] == ["a"]
    other.close()


def test_look_that_takes_all_that_is_due_rings_for_nobody(store: Store) -> None:
    marker = store.keys.wake("celery")
    put(store, "a", delay=0.05)
    put(store, "b", delay=0.05)
    store.call("DEL", marker)
    wait_until(lambda: due(store) == 2)
    found = store.fetch("w", ["celery"], 1)
    assert len(found.jobs) == 1
    assert found.more
    assert store.call("LLEN", marker) == 1
    store.call("DEL", marker)
    put(store, "c", delay=0.05)
    wait_until(lambda: due(store) == 1)
    found = store.fetch("w", ["celery"], 10)
    assert len(found.jobs) == 2
    assert store.call("LLEN", marker) == 0


def test_one_of_those_who_wait_comes_when_a_job_is_due_and_the_others_after_it(
    store: Store,
) -> None:
    put(store, "a", delay=1)

    def told(worker: str, *, waits: bool = True) -> float:
        """When it is to come. Of many answers, the one that was on its way for the least time."""
        found = [store.fetch(worker, ["celery"], 1, waits=waits) for _ in range(20)]
        return max(each.at + (each.due_in or 0) for each in found)

    first, second, busy = told("first"), told("second"), told("busy", waits=False)
    assert second - first > 0.0015
    assert abs(told("first") - first) < 0.0015
    assert abs(busy - first) < 0.0015


def test_wait_ends_when_interrupted_and_when_it_is_time(store: Store) -> None:
    bell = Bell(store, LEASE)
    ask(bell, store)
    threading.Timer(0.05, bell.interrupt).start()
    assert bell.hear(soon()) is False
    due = time.monotonic() + 0.1
    assert bell.hear(due) is True
    assert 0 <= time.monotonic() - due < 0.5
    assert bell.asked == {"celery"}
    bell.close()


def test_answer_that_is_too_old_is_not_used(
    make_system: t.Callable[..., System], own_valkey: servers.Valkey
) -> None:
    """Of a server that hung, or to a process that was stopped: the lease may be over."""
    store = store_of(make_system(own_valkey.url))
    bell = Bell(store, 0.9)
    ask(bell, store)
    own_valkey.pause()
    try:
        with pytest.raises(StoreUnavailable):
            bell.hear(soon())
    finally:
        own_valkey.resume()
    assert bell.take_back() == []


def test_job_of_a_server_that_refuses_to_wait_is_given_back(store: Store) -> None:
    bell = Bell(store, LEASE)
    store.call("SET", store.keys.wake("broken"), "what is this")
    put(store, "a")
    ask(bell, store, "broken", "celery")
    with pytest.raises(StoreUnavailable, match="refused to wait"):
        bell.hear(soon())
    assert [job.job_id for job in bell.take_back()] == ["a"]
    bell.close()


# -- with a worker


def tasks_of(system: System) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", system.app().extensions["offload"].celery.tasks)


def test_cancelled_queue_is_left_alone_until_it_is_consumed_again(
    system: System, tmp_path: Path
) -> None:
    add = tasks_of(system)["sample.add"]
    control = add.app.control
    system.worker(*THREADS, "2", "-Q", "celery,other")
    assert add.delay(1).get(timeout=20) == 2
    (answer,) = control.cancel_consumer("celery", reply=True)
    assert "ok" in next(iter(answer.values()))
    left = add.delay(1)
    until = time.monotonic() + 1.5  # a lost marker would be made good for by then
    while time.monotonic() < until:
        assert add.apply_async((2,), queue="other").get(timeout=20) == 3
    assert left.record.state is JobState.QUEUED
    assert left.record.starts == 0
    control.add_consumer("celery", reply=True)
    assert left.get(timeout=20) == 2


def test_delayed_jobs_start_when_they_are_due_and_never_before(system: System) -> None:
    moment = tasks_of(system)["sample.moment"]
    store = moment.app.store
    for _ in range(2):
        system.worker(*THREADS, "2")
    jobs = []
    for number in range(40):
        job = moment.apply_async(countdown=0.3 + number * 7 % 40 / 20)
        # By the clock of the server, which is the one of this machine.
        jobs.append((job, float(store.call("HGET", store.keys.job(job.id), "due_at"))))
    late = sorted(job.get(timeout=20) - due for job, due in jobs)
    assert late[0] >= 0
    # Who looked once a second would be late by half of one.
    assert late[20] < 0.1, late
    assert {job.record.starts for job, _ in jobs} == {1}


def test_worker_that_freezes_as_it_waits_holds_one_job_for_a_lease(
    make_system: t.Callable[..., System], server: servers.Valkey
) -> None:
    system = make_system(server.url, OFFLOAD_LEASE="4")
    add = tasks_of(system)["sample.add"]
    store = add.app.store
    frozen = system.worker(*THREADS, "2")
    assert add.delay(1).get(timeout=20) == 2
    holder = None
    while not holder:
        frozen.freeze()
        held = add.delay(2)
        # Unless it was about to ask for the next second.
        holder = store.call("HGET", store.keys.job(held.id), "worker")
        if not holder:
            frozen.thaw()
            assert held.get(timeout=20) == 3
    stopped = time.monotonic()
    system.worker(*THREADS, "2")
    # It has asked for this one only: the others need not wait.
    for number in range(10):
        job = add.delay(number)
        assert job.get(timeout=20) == number + 1
        assert store.call("HGET", store.keys.job(job.id), "leases_lost") is None
    assert held.get(timeout=20) == 3
    assert 3 < time.monotonic() - stopped < 15
    assert store.call("HGET", store.keys.job(held.id), "leases_lost") == "1"
    frozen.thaw()
    # What it was handed is another one's by now, and it goes on.
    jobs = [add.delay(number) for number in range(20)]
    assert [job.get(timeout=20) for job in jobs] == list(range(1, 21))
    assert held.record.starts == 1


def test_stop_of_a_worker_that_waits_keeps_no_job(system: System, tmp_path: Path) -> None:
    """What the server handed out to it meanwhile is run, or goes back: now, not after a lease."""
    ledger = tmp_path / "ledger"
    note = tasks_of(system)["sample.note"]
    jobs: list[t.Any] = []
    over = threading.Event()

    def enqueue() -> None:
        while not over.wait(0.003):
            jobs.append(note.delay(str(ledger), f"n{len(jobs)}"))

    first = system.worker(*THREADS, "2")
    enqueuing = threading.Thread(target=enqueue)
    enqueuing.start()
    try:
        wait_until(lambda: len(jobs) > 50)
        assert first.stop() == 0
    finally:
        over.set()
        enqueuing.join()
    second = system.worker(*THREADS, "2")
    for job in jobs:
        job.get(timeout=10)
    assert sorted(ledger.read_text().split()) == sorted(f"n{n}" for n in range(len(jobs)))
    # One that has nothing to do ends at once.
    started = time.monotonic()
    assert second.stop() == 0
    assert time.monotonic() - started < 5


def test_one_thread_waits_and_still_serves_what_takes_celerys_way(system: System) -> None:
    add = tasks_of(system)["sample.add"]
    system.worker(*THREADS, "1")
    for number in range(10):
        assert add.delay(number).get(timeout=20) == number + 1
        # With an expiry it is not plain, and goes by the event loop and the pool's own queue.
        job = add.apply_async((number,), expires=60)
        assert job.get(timeout=20) == number + 1
    jobs = [add.apply_async((n,), expires=60 if n % 2 else None) for n in range(40)]
    assert [job.get(timeout=20) for job in jobs] == list(range(1, 41))
    assert {job.record.starts for job in jobs} == {1}


def test_jobs_are_picked_up_after_the_server_was_away(
    make_system: t.Callable[..., System], own_valkey: servers.Valkey
) -> None:
    system = make_system(own_valkey.url)
    add = tasks_of(system)["sample.add"]
    worker = system.worker(*THREADS, "2")
    assert add.delay(1).get(timeout=20) == 2
    own_valkey.stop()
    # Who waits for jobs, or the event loop, whoever hears of it first.
    told = ("No jobs can be fetched", "Cannot connect")
    wait_until(lambda: any(text in worker.text for text in told), message=lambda: worker.text)
    own_valkey.start()
    assert add.delay(2).get(timeout=20) == 3
    assert worker.popen.poll() is None
