"""Users of the server that may do no more than docs/security.md says."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import redis
from celery import chord

import servers
from flask_offload import EnqueueError, JobState
from flask_offload._store import StoreUnavailable, acl
from flask_offload._store.keys import Keys
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System

DOCS = Path(__file__).resolve().parents[2] / "docs"
ROLES: tuple[t.Literal["web", "worker"], ...] = ("web", "worker")


@pytest.fixture(params=servers.KINDS)
def server(request: pytest.FixtureRequest) -> t.Iterator[servers.Valkey]:
    with servers.of_kind(request.param) as server:
        yield server


@pytest.fixture
def systems(make_system: t.Callable[..., System], server: servers.Valkey) -> dict[str, System]:
    """The same app under the user of each role, and nobody else on the server."""
    namespace = "roles"
    with server.client() as client:
        for role in ROLES:
            rules = acl(role, Keys(namespace), 0).split()
            client.execute_command("ACL", "SETUSER", role, "on", f">{role}-pw", *rules)
        client.execute_command("ACL", "SETUSER", "default", "resetpass", ">admin")
    return {
        role: make_system(
            server.url.replace("//", f"//{role}:{role}-pw@"), OFFLOAD_NAMESPACE=namespace
        )
        for role in ROLES
    }


def test_documented_rules_are_the_ones_that_are_tested() -> None:
    text = re.sub(r"[\s\\]+", " ", (DOCS / "security.md").read_text("utf-8"))
    for role in ROLES:
        assert f"ACL SETUSER {role} on >secret {acl(role, Keys('shop'), 0)} " in text


def test_web_enqueues_reads_and_cancels_and_a_worker_runs(
    systems: dict[str, System], server: servers.Valkey
) -> None:
    state = systems["web"].app().extensions["offload"]
    tasks, control = state.celery.tasks, state.control
    assert control.health("web").faults == []
    early = tasks["sample.add"].options(priority=3, unique="one").delay(1, 2)
    assert early.position == 1
    assert early.record.state is JobState.QUEUED
    assert [record.id for record in control.newest()] == [early.id]
    waits = tasks["sample.add"].options(delay=100).delay(1)
    assert control.cancel(waits.id) is JobState.SCHEDULED
    assert control.overview().queues[0].waiting == 1
    worker = systems["worker"].worker("--pool", "prefork", "--task-events", mingle=True)
    with control.feed.subscribe([early.id]) as changes:
        assert early.get(timeout=20) == 3
        changes.wait(5)
    assert len(control.workers()) == 1
    running = tasks["sample.count"].delay(500)
    wait_until(lambda: control.logs(running.id), 20)
    control.cancel(running.id)
    wait_until(lambda: running.record.state is JobState.CANCELLED, 20)
    assert control.retry(early.id).get(timeout=20) == 3
    parts = [tasks["sample.add"].s(1, 1), tasks["sample.add"].s(2, 2)]
    assert chord(parts)(tasks["sample.total"].s()).get(timeout=30) == 6
    retried = tasks["sample.log_in"].delay("me", "secret")
    wait_until(lambda: retried.record.state is JobState.FAILED, 30)
    assert worker.stop() == 0
    assert control.workers() == []
    with redis.Redis(port=server.port, password="admin", decode_responses=True) as client:
        refused = {(entry["username"], entry["object"]) for entry in client.acl_log()}
    # The name of the client library; redis-py takes no for an answer.
    assert {command for _, command in refused} <= {"client|setinfo"}


def test_web_can_do_no_more(systems: dict[str, System], server: servers.Valkey) -> None:
    state = systems["web"].app().extensions["offload"]
    job = state.celery.tasks["sample.add"].delay(1)
    store = state.control.store
    with pytest.raises(StoreUnavailable, match="may not do this.*flask offload acl web"):
        store.fetch("w", ["celery"], 1)
    assert job.record.state is JobState.QUEUED
    with redis.Redis.from_url(systems["web"].env["OFFLOAD_URL"]) as client:
        key = store.keys.queue("celery")
        for command in (
            "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "CONFIG GET *", "CLIENT LIST", "ACL LIST",
            "SHUTDOWN", "MONITOR", "SAVE", f"ZPOPMIN {key}",
            f"RENAME {key} {key}2", "PSUBSCRIBE *", f"BRPOP {store.keys.wake('celery')} 1",
            "GET another", "SET another 1", "HSET {other}:job:1 a b", "PUBLISH another hello",
            "SUBSCRIBE another", "FUNCTION LIST", "SCRIPT FLUSH", "EVAL return 0 1 another",
        ):  # fmt: skip
            words = command.split()
            if words[0] == "EVAL":
                words = ["EVAL", "return redis.call('KEYS','*')", "0"]
            with pytest.raises(redis.ResponseError, match="permission|NOPERM|can't run"):
                client.execute_command(*words)
    assert server.process
    assert server.process.popen.poll() is None


def test_missing_rights_are_named(systems: dict[str, System], server: servers.Valkey) -> None:
    with redis.Redis(port=server.port, password="admin") as client:
        client.execute_command("ACL", "SETUSER", "web", "-xadd", "-publish")
    app = systems["web"].app()
    (fault,) = app.extensions["offload"].control.health("web").faults
    assert fault.what == "The user of OFFLOAD_URL may not run: publish, xadd."
    assert fault.mend.endswith("flask offload acl web")
    with pytest.raises(EnqueueError, match="may not do this.*flask offload acl web") as error:
        app.extensions["offload"].celery.tasks["sample.add"].delay(1)
    assert "\n" not in str(error.value)
    # A worker that was given the user of the web role refuses to start.
    worker = systems["web"].worker(ready=False)
    assert worker.popen.wait(30) == 1
    assert "Error: The user of OFFLOAD_URL may not run: brpop, " in worker.text
    assert "flask offload acl worker" in worker.text
    assert "Traceback" not in worker.text
