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
