"""Celery apps that know nothing of Flask, on the line by their settings alone.

What they are told is what Celery on Redis would tell them.
"""

from __future__ import annotations

import contextlib
import copy
import json
import secrets
import typing as t
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import chain, chord, group
from celery.result import AsyncResult
from kombu import Queue

import plain_app
import servers
from waiting import wait_until

if t.TYPE_CHECKING:
    from celery import Celery


class Plain:
    """An app, and workers for it."""

    def __init__(self, folder: Path, url: str, **config: t.Any) -> None:
        self.folder = folder
        self.url = url
        self.namespace = f"p{secrets.token_hex(4)}"
        self.config = config
        self.app = plain_app.create_app(url, self.namespace, **config)
        self.workers: list[servers.Process] = []

    def worker(self, *arguments: str) -> servers.Process:
        log = self.folder / f"worker{len(self.workers)}.log"
        env = {"PLAIN_URL": self.url, "PLAIN_NAMESPACE": self.namespace}
        env["PLAIN_CONFIG"] = json.dumps(self.config)
        name = f"p{len(self.workers)}@{self.namespace}"
        process = servers.worker("plain_app.celery", log, "-n", name, *arguments, env=env)
        self.workers.append(process)
        wait_until(lambda: "ready." in process.text, 30, message=lambda: process.text)
        return process

    def task(self, name: str) -> t.Any:
        return self.app.tasks[f"plain.{name}"]

    def key(self, kind: str, name: str = "") -> str:
        return f"{{{self.namespace}}}:{kind}{':' if name else ''}{name}"

    def close(self) -> None:
        for process in self.workers:
            process.kill()
        self.app.close()


@pytest.fixture
def plain(valkey: servers.Valkey, tmp_path: Path) -> t.Iterator[t.Callable[..., Plain]]:
    with contextlib.ExitStack() as stack:

        def make(**config: t.Any) -> Plain:
            made = Plain(tmp_path, valkey.url, **config)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture(scope="module")
def running(valkey: servers.Valkey, tmp_path_factory: t.Any) -> t.Iterator[Plain]:
    """One app and worker for the tests that change nothing of them."""
    made = Plain(tmp_path_factory.mktemp("plain"), valkey.url)
    try:
        made.worker("--pool", "prefork", "--concurrency", "2")
        yield made
    finally:
        made.close()


def words(ledger: Path) -> list[str]:
    return ledger.read_text().split() if ledger.exists() else []


def test_canvas(running: Plain) -> None:
    add, total = running.task("add"), running.task("total")
    assert chain(add.s(1, 2), add.s(3), add.s(4))().get(timeout=20) == 10
    assert group(add.s(n, n) for n in range(5))().get(timeout=20) == [0, 2, 4, 6, 8]
    assert chord((add.s(n, 1) for n in range(5)), total.s())().get(timeout=20) == 15
    nested = chain(group(add.s(1, 1), add.s(2, 2)), total.s(), add.s(10))
    assert nested().get(timeout=20) == 16


def test_error_reaches_the_caller(running: Plain) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        running.task("fail").delay().get(timeout=20)


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_plain_job_takes_the_short_way(plain: t.Callable[..., Plain], pool: str) -> None:
    """Unless somebody listens to the signals of every run; the way is told by the traceback."""
    made = plain(task_acks_late=True)
    made.worker("--pool", pool, "--concurrency", "1")
    job = made.task("fail").delay()
    with pytest.raises(ValueError, match="on purpose"):
        job.get(timeout=20)
    assert "_celery/lane/short.py" in str(job.traceback)
    assert made.task("due").apply_async(countdown=0.2).get(timeout=20)


def test_plain_job_that_turns_out_slow_keeps_no_other_waiting(
    plain: t.Callable[..., Plain], tmp_path: Path
) -> None:
    """The thread that runs all that is quick is in it; another one hears of the next job."""
    made = plain(task_acks_late=True)
    made.worker("--pool", "threads", "--concurrency", "2")
    ledger = tmp_path / "ledger"
    for job in [made.task("run").delay(str(ledger)) for _ in range(60)]:
        job.get(timeout=20)
    slow = made.task("run").delay(str(tmp_path / "slow"), 6)
    wait_until((tmp_path / "slow").exists)
    made.task("run").delay(str(ledger)).get(timeout=4)
    assert not slow.ready()
    slow.get(timeout=20)


def test_message_of_protocol_1(running: Plain, valkey: servers.Valkey) -> None:
    app: Celery = running.app
    old = plain_app.create_app(running.url, running.namespace, task_protocol=1)
    result = old.tasks["plain.add"].delay(20, 22)
    assert AsyncResult(result.id, app=app).get(timeout=20) == 42
    # It was a job as any other: with a record.
    with valkey.client() as client:
        assert client.hget(running.key("job", result.id), "task") == "plain.add"
    old.close()


def test_message_that_is_no_task_takes_a_list(running: Plain) -> None:
    with running.app.connection_for_write() as connection:
        queue = connection.SimpleQueue("letters")
        queue.put({"dear": "worker"}, priority=3)
        queue.put("urgent")  # Priority 0, which goes first.
        assert queue.qsize() == 2
        for expected in ("urgent", {"dear": "worker"}):
            message = queue.get(timeout=10)
            assert message.payload == expected
            message.ack()
        with pytest.raises(queue.Empty):
            queue.get_nowait()
        queue.close()


def test_reply_of_the_rpc_backend(plain: t.Callable[..., Plain]) -> None:
    made = plain(result_backend="rpc://")
    made.worker("--pool", "solo")
    assert made.task("add").delay(1, 2).get(timeout=20) == 3
    with pytest.raises(ValueError, match="on purpose"):
        made.task("fail").delay().get(timeout=20)


def test_state_is_retry_until_it_runs_again(running: Plain) -> None:
    result = running.task("flaky").delay(2)
    wait_until(lambda: result.state == "RETRY", 20, message=lambda: result.state)
    assert result.get(timeout=20) == "at last"
    assert result.state == "SUCCESS"


def test_task_that_keeps_no_result_reads_pending(
    running: Plain, valkey: servers.Valkey, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    result = running.task("quiet").delay(str(ledger))
    wait_until(lambda: words(ledger) == ["ran"], 20)
    with valkey.client() as client:
        job = running.key("job", result.id)
        wait_until(lambda: client.hget(job, "state") == "succeeded")
    assert (result.state, result.result) == ("PENDING", None)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_results_and_records_last_as_long_as_the_settings_say(
    plain: t.Callable[..., Plain], valkey: servers.Valkey, pool: str
) -> None:
    made = plain(result_expires=120, result_failure_expires=500)
    made.worker("--pool", pool, "--concurrency", "1")
    done, failed = made.task("add").delay(1), made.task("fail").delay()
    assert done.get(timeout=20) == 2
    failed.get(timeout=20, propagate=False)
    with valkey.client() as client:
        for result, most in ((done, 120), (failed, 500)):
            for kind in ("result", "job"):
                lifetime = client.ttl(made.key(kind, result.id))
                assert most - 60 < lifetime <= most, (kind, most, lifetime)


def test_result_that_is_another_result(running: Plain) -> None:
    result = running.task("other").delay()
    other = result.get(timeout=20)
    assert other == [[f"{result.id}-other", None], None]
    assert AsyncResult(f"{result.id}-other", app=running.app).get(timeout=20) == 3


def test_task_is_told_when_it_was_due(running: Plain) -> None:
    eta = datetime.now(UTC) + timedelta(seconds=1)
    found = running.task("due").apply_async(eta=eta).get(timeout=20)
    assert datetime.fromisoformat(found) == eta
    assert datetime.now(UTC) >= eta
    assert running.task("due").delay().get(timeout=20) is None


def test_passive_declaration_tells_the_length_of_a_line(plain: t.Callable[..., Plain]) -> None:
    made = plain(task_create_missing_queues=True)
    for _ in range(3):
        made.task("add").apply_async((1,), queue="slow")
    with made.app.connection_for_write() as connection:
        channel = connection.default_channel
        found = Queue("slow", channel=channel).queue_declare(passive=True)
        assert found.message_count == 3
        with pytest.raises(Exception, match="NOT_FOUND"):
            Queue("nowhere", channel=channel).queue_declare(passive=True)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_killed_worker_in_the_middle_of_a_job(
    plain: t.Callable[..., Plain], tmp_path: Path, pool: str
) -> None:
    ledger = tmp_path / "ledger"
    made = plain()
    worker = made.worker("--pool", pool, "--concurrency", "1")
    result = made.task("survive").delay(str(ledger), 2)
    wait_until(lambda: words(ledger) == ["start"], 20)
    worker.kill()
    made.worker("--pool", pool, "--concurrency", "1")
    result.get(timeout=30)
    assert words(ledger) == ["start", "start", "end"]


def test_no_cap_but_the_servers(running: Plain) -> None:
    assert running.task("large").delay(3_000_000).get(timeout=30) == "x" * 3_000_000
    assert running.task("size").delay("x" * 3_000_000).get(timeout=30) == 3_000_000


def test_id_that_is_used_again_runs_again_once_it_is_over(running: Plain, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    task = running.task("run").s(str(ledger))
    task.freeze()
    for times in (1, 2, 3):
        task.apply_async()
        wait_until(lambda times=times: words(ledger) == ["start", "end"] * times, 20)
    # The link of a chain is sent by a worker.
    link = running.task("run").si(str(ledger))
    link.freeze()
    for times in (4, 5):
        chain(running.task("add").si(1, 1), link)()
        wait_until(lambda times=times: words(ledger) == ["start", "end"] * times, 20)


def test_id_that_is_used_again_adds_nothing_before_it_is_over(
    running: Plain, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    task = running.task("run").s(str(ledger), 2)
    first = task.freeze()
    task.apply_async()
    task.apply_async()
    wait_until(lambda: words(ledger) == ["start"], 20)
    task.apply_async()
    first.get(timeout=20)
    assert running.task("add").delay(1).get(timeout=20) == 2
    assert words(ledger) == ["start", "end"]


def test_same_message_again_adds_nothing(running: Plain, tmp_path: Path) -> None:
    """A publish that is repeated because its answer was lost, when the job is over already."""
    ledger = tmp_path / "ledger"
    sent: list[t.Any] = []
    with running.app.connection_for_write() as connection:
        channel = connection.default_channel
        enqueue = channel.engine.enqueue

        def twice(queue: str, message: t.Any) -> t.Any:
            sent.append(copy.deepcopy(message))
            return enqueue(queue, message)

        channel.engine.enqueue = twice
        try:
            result = running.task("run").apply_async((str(ledger),), connection=connection)
        finally:
            del channel.engine.enqueue
        result.get(timeout=20)
        assert enqueue("celery", sent[0]) == ("exists", result.id)
    assert running.task("add").delay(1).get(timeout=20) == 2
    assert words(ledger) == ["start", "end"]


def test_record_of_the_second_run_is_whole(running: Plain, valkey: servers.Valkey) -> None:
    task = running.task("add").s(1, 2)
    job = running.key("job", task.freeze().id)
    with valkey.client() as client:
        fences = []
        for _ in range(2):
            task.apply_async()
            wait_until(lambda: client.hget(job, "state") == "succeeded", 20)
            fences.append(int(client.hget(job, "fence") or 0))
            assert client.ttl(job) > 0
        assert fences[1] > fences[0]
        assert client.hexists(job, "reuse") is False
        members = client.zrange(running.key("expiry"), 0, -1)
        assert len([member for member in members if member.startswith(task.id)]) == 1


def test_inspect_tells_what_is_due_later(running: Plain) -> None:
    eta = datetime.now(UTC) + timedelta(seconds=60)
    add = running.task("add")
    later = add.apply_async((1,), {"b": 2}, eta=eta)
    add.apply_async((9,), queue="elsewhere", countdown=60)
    inspect = running.app.control.inspect(timeout=5)
    (entries,) = wait_until(inspect.scheduled, 20).values()
    (entry,) = entries
    assert entry["eta"] == eta.isoformat()
    request = entry["request"]
    assert (request["id"], request["name"]) == (later.id, "plain.add")
    assert (request["args"], request["kwargs"]) == ([1], {"b": 2})
    assert (request["acknowledged"], request["worker_pid"]) == (False, None)
    assert request["delivery_info"]["routing_key"] == "celery"
