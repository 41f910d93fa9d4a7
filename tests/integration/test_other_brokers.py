"""Another broker carries the messages, stock Redis or RabbitMQ: what waits is with its record."""

from __future__ import annotations

import json
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
from flask_offload._celery import broker as publishing
from flask_offload._celery import delayed, envelope
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System

BROKERS = ["stock", "rabbitmq"]


@pytest.fixture(scope="module", params=BROKERS)
def broker_url(request: pytest.FixtureRequest, valkey: servers.Valkey) -> t.Iterator[str]:
    if request.param == "stock":
        yield valkey.url.replace("redis://", "redis+kombu://")
        return
    if not rabbitmq.installed() and "CI" not in os.environ:
        pytest.skip(rabbitmq.HOW_TO_GET_IT)
    with rabbitmq.rabbitmq() as server:
        yield server.url


@pytest.fixture
def system(make_system: t.Callable[..., System], valkey: servers.Valkey, broker_url: str) -> System:
    hidden = "3600" if "kombu" in broker_url else ""
    return make_system(valkey.url, OFFLOAD_BROKER_URL=broker_url, VISIBILITY_TIMEOUT=hidden)


def words(ledger: Path) -> list[str]:
    return ledger.read_text().split() if ledger.exists() else []


def scheduled(celery: t.Any) -> list[str]:
    found: list[str] = celery.store.call("ZRANGE", f"{celery.store.keys.prefix}scheduled", 0, -1)
    return found


def field(celery: t.Any, job: t.Any, name: str) -> t.Any:
    return celery.store.call("HGET", celery.store.keys.job(job.id), name)


def take(celery: t.Any, queue: str) -> t.Any:
    """One message from a queue of the broker, as any client would get it."""
    with celery.connection_for_read() as connection:
        message = celery.amqp.queues[queue](connection.default_channel).get(no_ack=True)
        return message and (message.body, dict(message.headers), dict(message.properties))


def publish(celery: t.Any, delivery: t.Any) -> None:
    """What a worker does with a delayed job, except that it notes nothing after it."""
    message = envelope.due(delivery)
    message["declare"] = delayed._declared(celery, delivery.queue, message["exchange"])
    publishing.put(celery, delayed._send, message, celery.deadline())


def in_queue(celery: t.Any) -> int:
    """How many messages the broker would give to the next who asks."""
    queue = celery.amqp.default_queue
    if celery.conf.broker_url.startswith("amqp"):
        with celery.connection_for_read() as connection:
            found = queue(connection.default_channel).queue_declare(passive=True)
            return int(found.message_count)
    return int(celery.store.call("LLEN", f"{celery.store.keys.prefix}{queue.name}"))


# -- delayed


def test_delayed_job_needs_no_broker_to_be_enqueued(
    make_system: t.Callable[..., System], valkey: servers.Valkey
) -> None:
    for scheme in ("amqp", "redis+kombu"):
        away = f"{scheme}://127.0.0.1:{servers.free_port()}//"
        system = make_system(valkey.url, OFFLOAD_BROKER_URL=away, VISIBILITY_TIMEOUT="")
        celery = system.app().extensions["offload"].celery
        job = celery.tasks["sample.add"].options(delay=30).delay(1)
        assert job.record.state is JobState.SCHEDULED
        assert scheduled(celery) == [job.id]
        job.cancel()
        assert job.record.state is JobState.CANCELLED
        assert scheduled(celery) == []


def test_delayed_job_starts_when_it_is_due(system: System, tmp_path: Path) -> None:
    celery = system.app().extensions["offload"].celery
    system.worker()
    late = []
    for delay in (0.3, 1.0, 2.5):
        job = celery.tasks["sample.add"].apply_async((1,), countdown=delay)
        due = job.record.due_at
        assert due is not None
        assert job.get(timeout=20) == 2
        late.append(job.record.started_at - due)
        assert job.record.starts == 1
    assert all(0 <= seconds < 2.5 for seconds in late)
    assert scheduled(celery) == []


def test_due_message_is_what_celery_would_have_sent(system: System) -> None:
    celery = system.app().extensions["offload"].celery
    add = celery.tasks["sample.add"]
    options: dict[str, t.Any] = {
        "queue": "aside",
        "priority": 3,
        "time_limit": 30,
        "soft_time_limit": 20,
        "expires": 3600,
        "link": add.s(5),
        "link_error": celery.tasks["sample.quiet"].si(),
        "headers": {"tenant": "ada"},
        "compression": "zlib",
    }
    now = add.apply_async((1,), {"b": 2}, **options)
    at_once = wait_until(lambda: take(celery, "aside"))
    later = add.apply_async((1,), {"b": 2}, countdown=0.5, **options)
    # This worker publishes, and takes nothing of the queue.
    system.worker("-Q", "other")
    body, headers, properties = wait_until(lambda: take(celery, "aside"), 20)
    # The record is told once the broker has the message.
    wait_until(lambda: later.record.state is JobState.QUEUED)
    # kombu has decompressed them.
    assert json.loads(body) == json.loads(at_once[0])
    assert json.loads(body)[:2] == [[1], {"b": 2}]
    ours = {"offload_eta", "offload_fence"}
    assert ours <= set(headers)
    moving = {"id", "root_id", "expires", "eta", "stamps", *ours}
    assert {k: v for k, v in headers.items() if k not in moving} == {
        k: v for k, v in at_once[1].items() if k not in moving
    }
    assert (headers["id"], headers["root_id"], headers["eta"]) == (later.id, later.id, None)
    assert headers["expires"]
    assert headers["tenant"] == "ada"
    assert properties["correlation_id"] == later.id
    for name in ("reply_to", "priority", "delivery_mode"):
        assert properties[name] == at_once[2][name]
    assert now.id != later.id


def test_two_workers_publish_each_delayed_job_once(system: System, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    celery = system.app().extensions["offload"].celery
    for _ in range(2):
        system.worker("--concurrency", "2")
    write = celery.tasks["sample.note"]
    jobs = [write.options(delay=1).delay(str(ledger), f"j{n}") for n in range(60)]
    for job in jobs:
        job.get(timeout=40)
    assert sorted(words(ledger)) == sorted(f"j{n}" for n in range(60))
    assert [job.record.starts for job in jobs] == [1] * 60


def test_publisher_that_died_before_it_published_loses_nothing(
    system: System, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    celery = system.app().extensions["offload"].celery
    job = celery.tasks["sample.note"].options(delay=0.1).delay(str(ledger), "ran")
    taken = wait_until(lambda: celery.store.due(20, 1.0)[1])
    assert [delivery.job_id for delivery in taken] == [job.id]
    assert celery.store.due(20, 1.0)[1] == []
    system.worker()
    job.get(timeout=20)
    assert (words(ledger), job.record.starts) == (["ran"], 1)
    assert scheduled(celery) == []


@pytest.mark.parametrize("when", ["waiting", "running"])
def test_publisher_that_died_before_it_noted_starts_nothing_twice(
    system: System, tmp_path: Path, when: str
) -> None:
    """Its message is in the broker, and the job is still to be published."""
    ledger = tmp_path / "ledger"
    celery = system.app().extensions["offload"].celery
    job = celery.tasks["sample.sleep"].options(delay=0.1).delay(2, str(ledger))
    (first,) = wait_until(lambda: celery.store.due(20, 1.0)[1])
    if when == "running":
        system.worker("--concurrency", "2")
    publish(celery, first)
    if when == "waiting":
        # Two messages of it are in the broker before any worker takes one.
        (second,) = wait_until(lambda: celery.store.due(20, 5.0)[1])
        publish(celery, second)
        system.worker("--concurrency", "2")
    assert job.get(timeout=20) == "slept"
    assert celery.tasks["sample.add"].delay(1).get(timeout=20) == 2
    # What the dead publisher had taken is looked at when its claim ends.
    wait_until(lambda: scheduled(celery) == [], 20)
    assert words(ledger) == ["start", "end"]
    assert job.record.starts == 1


def test_retry_with_a_pause_survives_its_worker(system: System) -> None:
    celery = system.app().extensions["offload"].celery
    worker = system.worker()
    job = celery.tasks["sample.log_in"].delay("ada", "hunter2")
    wait_until(lambda: job.record.state is JobState.RETRYING, 20)
    worker.kill()
    assert scheduled(celery) == [job.id]
    system.worker()
    wait_until(lambda: job.record.state.finished, 40, message=lambda: repr(job.record))
    assert (job.record.state, job.record.starts) == (JobState.FAILED, 3)
    assert job.record.error_type == "PermissionError"


def test_delayed_parts_of_a_chord(system: System) -> None:
    celery = system.app().extensions["offload"].celery
    from celery import chain, chord

    add, total = celery.tasks["sample.add"], celery.tasks["sample.total"]
    system.worker("--concurrency", "2")
    parts = [add.s(n, 0).set(countdown=0.5 * n) for n in range(3)]
    assert chord(parts)(total.s().set(countdown=0.5)).get(timeout=30) == 3
    steps = chain(add.s(1, 1).set(countdown=0.5), add.s(1).set(countdown=0.5))
    assert steps.apply_async().get(timeout=30) == 3


# -- what a worker cannot run


def test_task_that_no_worker_knows_waits_for_one(system: System, tmp_path: Path) -> None:
    celery = system.app().extensions["offload"].celery
    ignorant = system.worker(SAMPLE_WITHOUT="add")
    job = celery.tasks["sample.add"].delay(1)
    wait_until(lambda: field(celery, job, "parked"), 20)
    assert field(celery, job, "parked") == "No worker knows the task sample.add."
    assert job.record.state is JobState.QUEUED
    since = field(celery, job, "parked_at")
    # It has been offered again, and has been kept again.
    fence = int(field(celery, job, "fence"))
    wait_until(lambda: int(field(celery, job, "fence")) > fence + 1, 20)
    assert field(celery, job, "parked_at") == since
    ignorant.kill()
    system.worker()
    assert job.get(timeout=30) == 2
    assert (job.record.starts, field(celery, job, "parked")) == (1, None)
    assert scheduled(celery) == []


def test_task_that_nobody_ever_knows_is_dead(system: System) -> None:
    system.env["OFFLOAD_PARK_FOR"] = "2"
    celery = system.app().extensions["offload"].celery
    system.worker(SAMPLE_WITHOUT="add")
    job = celery.tasks["sample.add"].delay(1, b=2)
    wait_until(lambda: job.record.state.finished, 30, message=lambda: repr(job.record))
    record = job.record
    assert (record.state, record.error_type) == (JobState.DEAD, "NotRegistered")
    assert "OFFLOAD_PARK_FOR" in record.error
    assert job.state == "FAILURE"
    assert celery.store.payload(job.id)["kwargs"] == {"b": 2}
    assert "sample.add" in field(celery, job, "envelope")
    assert celery.tasks["sample.total"].delay([1]).get(timeout=20) == 1
    assert scheduled(celery) == []


def test_parked_job_can_be_cancelled(system: System) -> None:
    celery = system.app().extensions["offload"].celery
    system.worker(SAMPLE_WITHOUT="add")
    job = celery.tasks["sample.add"].delay(1)
    wait_until(lambda: field(celery, job, "parked"), 20)
    job.cancel()
    wait_until(lambda: scheduled(celery) == [])
    system.worker()
    assert celery.tasks["sample.total"].delay([1]).get(timeout=20) == 1
    assert (job.record.state, job.record.starts) == (JobState.CANCELLED, 0)


@pytest.mark.parametrize("bad", ["body", "headers", "format"])
def test_message_that_cannot_be_read_is_kept(system: System, bad: str) -> None:
    celery = system.app().extensions["offload"].celery
    queue = celery.amqp.default_queue
    body, headers = json.dumps([[1], {}, {}]), {"task": "sample.add", "id": f"bad-{bad}"}
    content = "application/json"
    if bad == "body":
        body = "{not json"
    elif bad == "headers":
        headers = {}
    else:
        content = "application/x-python-serialize"
    with celery.connection_for_write() as connection:
        celery.amqp.Producer(connection).publish(
            body.encode(),
            exchange=queue.exchange,
            routing_key=queue.routing_key,
            content_type=content,
            content_encoding="utf-8",
            headers=headers,
            declare=[queue],
        )
    worker = system.worker()
    assert celery.tasks["sample.add"].delay(1).get(timeout=20) == 2
    newest = system.app().extensions["offload"].control.newest
    dead = wait_until(
        lambda: [r for r in newest() if r.state in {JobState.DEAD, JobState.FAILED}],
        20,
        message=lambda: worker.text,
    )
    assert [(r.state, r.error_type) for r in dead] == [(JobState.DEAD, "UnreadableMessage")]
    assert celery.store.call("HGET", celery.store.keys.job(dead[0].id), "raw")
    assert worker.popen.poll() is None


def test_entry_that_kombu_cannot_read_ends_a_worker_of_the_stock_transport(
    make_system: t.Callable[..., System], valkey: servers.Valkey
) -> None:
    url = valkey.url.replace("redis://", "redis+kombu://")
    system = make_system(valkey.url, OFFLOAD_BROKER_URL=url)
    celery = system.app().extensions["offload"].celery
    celery.store.call("LPUSH", f"{celery.store.keys.prefix}celery", "{not json")
    worker = system.worker(ready=False)
    wait_until(lambda: worker.popen.poll() is not None, 30, message=lambda: worker.text)


# -- workers that are killed, paused or cut off


def test_worker_killed_between_taking_a_job_and_noting_it(
    system: System, tmp_path: Path, broker_url: str
) -> None:
    ledger = tmp_path / "ledger"
    celery = system.app().extensions["offload"].celery
    tasks = celery.tasks
    # Two, as the first job may be in its hands until it is acknowledged.
    worker = system.worker("--concurrency", "2")
    assert tasks["sample.add"].delay(1).get(timeout=20) == 2
    worker.freeze()
    job = tasks["sample.note"].delay(str(ledger), "ran")
    # The broker has given it away: it is not in the queue any more.
    wait_until(lambda: in_queue(celery) == 0)
    worker.kill()
    system.worker()
    assert tasks["sample.add"].delay(1).get(timeout=20) == 2
    if broker_url.startswith("amqp"):
        job.get(timeout=20)
        assert (words(ledger), job.record.starts) == (["ran"], 1)
    else:
        # kombu's transport: the message is gone, and the record waits for it.
        assert (words(ledger), job.record.state) == ([], JobState.QUEUED)


def test_killed_child_of_the_pool_runs_its_job_again(system: System, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    tasks = system.app().extensions["offload"].celery.tasks
    worker = system.worker("--pool", "prefork", "--concurrency", "1")
    job = tasks["sample.sleep"].delay(2, str(ledger))
    wait_until(lambda: words(ledger) == ["start"])
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    if not children.exists():
        pytest.skip("needs /proc to find the pool's child")
    for pid in children.read_text().split():
        servers.kill(int(pid))
    assert job.get(timeout=30) == "slept"
    assert words(ledger) == ["start", "start", "end"]


def test_full_server_of_the_records_refuses_the_enqueue(
    make_system: t.Callable[..., System], own_valkey: servers.Valkey, broker_url: str
) -> None:
    system = make_system(own_valkey.url, OFFLOAD_BROKER_URL=broker_url, VISIBILITY_TIMEOUT="")
    celery = system.app().extensions["offload"].celery
    celery.tasks["sample.add"].delay(1)
    with own_valkey.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1mb")
    for options in ({}, {"countdown": 5}):
        with pytest.raises(EnqueueError, match="full"):
            celery.tasks["sample.add"].apply_async((1,), **options)


def test_reply_to_an_enqueue_that_is_cut_off(
    make_system: t.Callable[..., System], valkey: servers.Valkey, broker_url: str, tmp_path: Path
) -> None:
    """At once: it is refused, and never runs. Delayed: it is asked for again."""
    ledger = tmp_path / "ledger"
    proxy = Proxy(valkey.port)
    try:
        hidden = "3600" if "kombu" in broker_url else ""
        system = make_system(valkey.url, OFFLOAD_BROKER_URL=broker_url, VISIBILITY_TIMEOUT=hidden)
        celery = system.app(OFFLOAD_URL=proxy.url).extensions["offload"].celery
        write = celery.tasks["sample.note"]
        assert celery.tasks["sample.add"].delay(1).record.state is JobState.QUEUED
        proxy.set("cut-replies")
        later = write.options(delay=0.5).delay(str(ledger), "cut-1")
        with pytest.raises(EnqueueError):
            write.delay(str(ledger), "cut-2")
        assert proxy.cuts == 2
        proxy.set("pass")
        system.worker()
        later.get(timeout=20)
        assert celery.tasks["sample.add"].delay(1).get(timeout=20) == 2
        assert (words(ledger), later.record.starts) == (["cut-1"], 1)
    finally:
        proxy.close()


# -- workers that are stopped


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_stop_lets_short_jobs_finish_and_gives_back_the_others(
    system: System, tmp_path: Path, pool: str
) -> None:
    ledger = tmp_path / "ledger"
    tasks = system.app().extensions["offload"].celery.tasks
    worker = system.worker("--pool", pool, "--concurrency", "1", OFFLOAD_GRACE="1")
    long = tasks["sample.sleep"].delay(30, str(ledger))
    wait_until(lambda: words(ledger) == ["start"])
    assert worker.stop() == 0
    assert (long.record.state, long.record.deliveries) == (JobState.QUEUED, 0)
    worker = system.worker("--pool", pool, "--concurrency", "2")
    wait_until(lambda: words(ledger) == ["start", "start"], 20)
    short = tasks["sample.sleep"].delay(1.5)
    wait_until(lambda: short.record.state is JobState.RUNNING)
    long.cancel()
    worker.signal(signal.SIGTERM)
    wait_until(lambda: short.record.state.finished, 20)
    assert short.record.state is JobState.SUCCEEDED


def test_cancelled_while_no_worker_is_up_never_runs(system: System, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    tasks = system.app().extensions["offload"].celery.tasks
    job = tasks["sample.sleep"].delay(0, str(ledger))
    job.cancel()
    system.worker()
    assert tasks["sample.add"].delay(1).get(timeout=20) == 2
    assert (words(ledger), job.record.state) == ([], JobState.CANCELLED)


def test_job_that_kills_its_worker_each_time_is_dead(system: System, tmp_path: Path) -> None:
    system.env["OFFLOAD_MAX_DELIVERIES"] = "3"
    ledger = tmp_path / "ledger"
    tasks = system.app().extensions["offload"].celery.tasks
    system.worker("--pool", "prefork")
    job = tasks["sample.die"].delay(str(ledger))
    wait_until(lambda: job.record.state.finished, 60, message=lambda: repr(job.record))
    assert (job.record.state, words(ledger)) == (JobState.DEAD, ["start"] * 3)
    assert tasks["sample.add"].delay(1).get(timeout=20) == 2


def test_paused_worker_keeps_its_job(system: System, tmp_path: Path) -> None:
    """There is no lease: a broker waits for as long as the connection seems to stand."""
    system.env["OFFLOAD_LEASE"] = "2"
    ledger = tmp_path / "ledger"
    tasks = system.app().extensions["offload"].celery.tasks
    worker = system.worker("--concurrency", "1")
    job = tasks["sample.sleep"].delay(2, str(ledger))
    wait_until(lambda: words(ledger) == ["start"])
    worker.freeze()
    system.worker()
    time.sleep(5)
    worker.thaw()
    assert job.get(timeout=20) == "slept"
    assert words(ledger) == ["start", "end"]
