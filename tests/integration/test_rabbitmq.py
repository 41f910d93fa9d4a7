"""RabbitMQ carries the messages, Valkey keeps the records."""

from __future__ import annotations

import os
import signal
import time
import typing as t
from pathlib import Path

import pytest

import rabbitmq
import servers
from chaos.proxy import Proxy
from flask_offload import EnqueueError, JobState
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System

pytestmark = pytest.mark.skipif(
    not rabbitmq.installed() and "CI" not in os.environ, reason=rabbitmq.HOW_TO_GET_IT
)


@pytest.fixture(scope="module")
def broker() -> t.Iterator[rabbitmq.RabbitMQ]:
    with rabbitmq.rabbitmq() as server:
        yield server


@pytest.fixture
def system(
    make_system: t.Callable[..., System], valkey: servers.Valkey, broker: rabbitmq.RabbitMQ
) -> System:
    return make_system(valkey.url, OFFLOAD_BROKER_URL=broker.url, VISIBILITY_TIMEOUT="")


def test_job_from_end_to_end(system: System, tmp_path: Path) -> None:
    state = system.app().extensions["offload"]
    tasks = state.celery.tasks
    job = tasks["sample.add"].delay(1, b=2)
    assert job.record.state is JobState.QUEUED
    assert job.record.queue == system.env["OFFLOAD_NAMESPACE"]
    system.worker()
    assert job.get(timeout=20) == 3
    assert (job.record.state, job.record.starts) == (JobState.SUCCEEDED, 1)
    counted = tasks["sample.count"].delay(3)
    assert counted.get(timeout=20) == "counted"
    assert len(counted.logs()) == 3
    later = tasks["sample.add"].options(delay=1).delay(5)
    assert later.record.state is JobState.SCHEDULED
    assert later.get(timeout=20) == 6
    failed = tasks["sample.log_in"].delay("ada", "hunter2")
    wait_until(lambda: failed.record.state.finished, 30, message=lambda: repr(failed.record))
    assert (failed.record.state, failed.record.starts) == (JobState.FAILED, 3)
    cancelled = tasks["sample.add"].options(delay=30).delay(5)
    cancelled.cancel()
    assert cancelled.state == "REVOKED"


def test_queue_is_a_quorum_queue(system: System) -> None:
    celery = system.app().extensions["offload"].celery
    celery.tasks["sample.add"].delay(1)
    with celery.connection_for_read() as connection:
        queue = celery.amqp.queues[system.env["OFFLOAD_NAMESPACE"]]
        assert queue.queue_arguments == {"x-queue-type": "quorum"}
        # Declared anew with other arguments, RabbitMQ would refuse it.
        assert queue(connection.default_channel).queue_declare(passive=True).message_count == 1


def test_killed_worker_runs_the_job_again_at_once(system: System, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    tasks = system.app().extensions["offload"].celery.tasks
    worker = system.worker()
    job = tasks["sample.sleep"].delay(1.5, str(ledger))
    wait_until(ledger.exists)
    worker.kill()
    system.worker()
    assert job.get(timeout=30) == "slept"
    assert ledger.read_text().split() == ["start", "start", "end"]


def test_cancel_survives_the_death_of_the_worker(system: System, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    tasks = system.app().extensions["offload"].celery.tasks
    worker = system.worker("--pool", "threads")
    job = tasks["sample.sleep"].delay(60, str(ledger))
    wait_until(ledger.exists)
    job.cancel()
    worker.kill()
    system.worker("--pool", "threads")
    wait_until(lambda: job.record.state is JobState.CANCELLED, 30)
    assert ledger.read_text().split() == ["start"]


def test_due_job_waits_while_the_broker_is_away(
    make_system: t.Callable[..., System], valkey: servers.Valkey, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    with rabbitmq.rabbitmq() as broker:
        system = make_system(valkey.url, OFFLOAD_BROKER_URL=broker.url, VISIBILITY_TIMEOUT="")
        tasks = system.app().extensions["offload"].celery.tasks
        worker = system.worker()
        broker.signal(signal.SIGSTOP)
        jobs = [tasks["sample.note"].options(delay=1).delay(str(ledger), str(n)) for n in range(3)]
        # It is due, and its publisher is killed in the middle of it.
        wait_until(lambda: "the broker does not take it" in worker.text, 20)
        assert {job.record.state for job in jobs} == {JobState.SCHEDULED}
        worker.kill()
        broker.signal(signal.SIGCONT)
        system.worker()
        for job in jobs:
            job.get(timeout=40)
            assert job.record.starts == 1
        assert sorted(ledger.read_text().split()) == ["0", "1", "2"]


def test_job_that_is_long_for_rabbitmq(system: System, tmp_path: Path) -> None:
    system.env["OFFLOAD_LEASE"] = "1"
    ledger = tmp_path / "ledger"
    tasks = system.app().extensions["offload"].celery.tasks
    for _ in range(2):
        system.worker("--concurrency", "1")
    job = tasks["sample.sleep"].delay(6, str(ledger))
    assert job.get(timeout=30) == "slept"
    assert ledger.read_text().split() == ["start", "end"]


def test_cut_connection_starts_a_running_job_again(
    make_system: t.Callable[..., System],
    valkey: servers.Valkey,
    broker: rabbitmq.RabbitMQ,
    tmp_path: Path,
) -> None:
    """RabbitMQ gives it to another worker; the first result counts."""
    ledger = tmp_path / "ledger"
    proxy = Proxy(broker.port)
    try:
        url = f"amqp://guest:guest@127.0.0.1:{proxy.port}//"
        system = make_system(valkey.url, OFFLOAD_BROKER_URL=broker.url, VISIBILITY_TIMEOUT="")
        tasks = system.app().extensions["offload"].celery.tasks
        system.worker("--concurrency", "1", OFFLOAD_BROKER_URL=url)
        # Longer than the other worker takes to start on a busy machine.
        job = tasks["sample.sleep"].delay(10, str(ledger))
        wait_until(ledger.exists)
        system.worker("--concurrency", "1")
        proxy.set("cut")
        assert job.get(timeout=40) == "slept"
        wait_until(lambda: ledger.read_text().split().count("end") == 2, 20)
        assert ledger.read_text().split().count("start") == 2
        assert (job.record.state, job.record.starts) == (JobState.SUCCEEDED, 2)
    finally:
        proxy.close()


def test_paused_worker_loses_its_job_with_its_heartbeats(
    make_system: t.Callable[..., System], valkey: servers.Valkey, tmp_path: Path
) -> None:
    """There is no lease here: the connection is given up, and both finish the job."""
    ledger = tmp_path / "ledger"
    with rabbitmq.rabbitmq("heartbeat = 2\n") as broker:
        system = make_system(valkey.url, OFFLOAD_BROKER_URL=broker.url, VISIBILITY_TIMEOUT="")
        tasks = system.app().extensions["offload"].celery.tasks
        worker = system.worker("--concurrency", "1")
        job = tasks["sample.sleep"].delay(4, str(ledger))
        wait_until(ledger.exists)
        worker.freeze()
        system.worker("--concurrency", "1")
        wait_until(lambda: ledger.read_text().split().count("start") == 2, 30)
        worker.thaw()
        assert job.get(timeout=30) == "slept"
        wait_until(lambda: ledger.read_text().split().count("end") == 2, 30)
        assert (job.record.state, job.record.starts) == (JobState.SUCCEEDED, 2)


def test_full_broker_refuses_the_enqueue(
    make_system: t.Callable[..., System], valkey: servers.Valkey, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    # Less memory than it has taken: RabbitMQ blocks who publishes, and answers nothing.
    with rabbitmq.rabbitmq("vm_memory_high_watermark.absolute = 1MB\n") as broker:
        system = make_system(valkey.url, OFFLOAD_BROKER_URL=broker.url, VISIBILITY_TIMEOUT="")
        state = system.app(OFFLOAD_PUBLISH_TIMEOUT=1).extensions["offload"]
        started = time.monotonic()
        with pytest.raises(EnqueueError, match="OFFLOAD_BROKER_URL"):
            state.celery.tasks["sample.sleep"].delay(0, str(ledger))
        assert time.monotonic() - started < 2.5
        (record,) = state.control.newest()
        assert record.state is JobState.FAILED
        # A delayed job needs no broker yet.
        later = state.celery.tasks["sample.sleep"].options(delay=60).delay(0, str(ledger))
        assert later.record.state is JobState.SCHEDULED


@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGKILL])
def test_enqueue_that_raised_never_runs(
    make_system: t.Callable[..., System], valkey: servers.Valkey, tmp_path: Path, fault: int
) -> None:
    ledger = tmp_path / "ledger"
    with rabbitmq.rabbitmq() as broker:
        system = make_system(valkey.url, OFFLOAD_BROKER_URL=broker.url, VISIBILITY_TIMEOUT="")
        state = system.app(OFFLOAD_PUBLISH_TIMEOUT=1).extensions["offload"]
        tasks = state.celery.tasks
        tasks["sample.add"].delay(1)
        broker.signal(fault)
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(EnqueueError, match="OFFLOAD_BROKER_URL"):
                tasks["sample.sleep"].delay(0, str(ledger))
            assert time.monotonic() - started < 2.5
        states = [record.state for record in state.control.newest()]
        assert states == [JobState.FAILED, JobState.FAILED, JobState.QUEUED]
        if fault == signal.SIGKILL:
            return
        broker.signal(signal.SIGCONT)
        system.worker()
        assert tasks["sample.add"].delay(2).get(timeout=30) == 3
        assert not ledger.exists()
