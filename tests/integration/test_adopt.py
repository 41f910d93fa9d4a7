"""From stock Celery's queues into the line: published by a real stock app, run by our workers."""

from __future__ import annotations

import itertools
import json
import secrets
import subprocess
import sys
import typing as t
from collections import Counter
from pathlib import Path

import pytest
from celery import Celery

import servers
from flask_offload import JobState
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System


@pytest.fixture(params=servers.KINDS)
def server(request: pytest.FixtureRequest) -> t.Iterator[servers.Valkey]:
    """A server of the test's own: unprefixed keys, and everybody on it, are its."""
    with servers.of_kind(request.param) as server:
        yield server


def stock(url: str, **options: t.Any) -> Celery:
    """Celery as it comes, with the settings that most have."""
    app = Celery(f"old{secrets.token_hex(2)}", broker=url, set_as_current=False)
    app.conf.update(broker_transport_options=options, task_ignore_result=True)
    return app


def adopt(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(adopting(system, *arguments), **around(system), timeout=90, check=False)


def adopting(system: System, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "flask", "--app", "sample", "offload", "adopt", *arguments]


def around(system: System) -> dict[str, t.Any]:
    return {
        "cwd": servers.HERE, "env": servers.environment(system.env), "text": True,
        "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
    }  # fmt: skip


def words(ledger: Path) -> Counter[str]:
    return Counter(ledger.read_text().split() if ledger.exists() else [])


def note(app: Celery, ledger: Path, word: str, **options: t.Any) -> str:
    return str(app.send_task("sample.note", [str(ledger), word], **options).id)


def old_keys(server: servers.Valkey, prefix: str = "") -> list[str]:
    with server.client() as client:
        found = [key for key in client.keys(f"{prefix}*") if prefix or not key.startswith("{")]
        return [key for key in found if "_kombu" not in key and "mutex" not in key]


def test_queues_priorities_and_delays(
    make_system: t.Callable[..., System], server: servers.Valkey, tmp_path: Path
) -> None:
    system, ledger = make_system(server.url), tmp_path / "ledger"
    old = stock(server.url)
    expected = []
    for number, priority in itertools.product(range(5), (None, 3, 6, 9)):
        note(old, ledger, f"p{priority or 0}n{number}", priority=priority)
        expected.append((priority or 0, number))
    # Long enough for the command to start on a slow machine before it is due.
    later = note(old, ledger, "later", countdown=10)
    far = note(old, ledger, "far", countdown=3600)
    note(old, ledger, "other", queue="other")
    old.conf.task_protocol = 1
    note(old, ledger, "ancient")
    done = adopt(system)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Adopted 23: 21 queued, 2 scheduled, 0 known already, 0 dead.\n"
    assert old_keys(server) == ["other"]
    assert adopt(system, "--queue", "other", "--queue", "none").stdout.startswith("Adopted 1: 1 ")
    assert adopt(system).stdout.startswith("Adopted 0:")
    control = system.app().extensions["offload"].control
    record = control.get(far)
    assert record.state is JobState.SCHEDULED
    assert 3500 < record.due_at - record.created_at <= 3600
    system.worker("--pool", "solo", "-Q", "celery,other")
    wait_until(lambda: control.get(later).state is JobState.SUCCEEDED, 30)
    wait_until(lambda: len(words(ledger)) == 23, 20, message=lambda: repr(words(ledger)))
    assert set(words(ledger).values()) == {1}
    in_order = [word for word in ledger.read_text().split() if word.startswith("p")]
    assert in_order == [f"p{priority}n{number}" for priority, number in sorted(expected)]


def test_what_a_killed_stock_worker_had_taken(
    make_system: t.Callable[..., System], server: servers.Valkey, tmp_path: Path
) -> None:
    system, ledger = make_system(server.url), tmp_path / "ledger"
    old = stock(server.url)
    for number in range(6):
        note(old, ledger, f"n{number}", countdown=None if number % 2 else 3)
    note(old, ledger, "foreign", queue="foreign", countdown=60)
    script = (
        "from celery import Celery\nfrom pathlib import Path\nimport time\n"
        f"app = Celery(broker={server.url!r})\n"
        "app.conf.update(task_acks_late=True, worker_prefetch_multiplier=10)\n"
        "@app.task(name='sample.note')\n"
        f"def note(ledger, word): Path({str(tmp_path / 'taken')!r}).touch(); time.sleep(600)\n"
    )
    (tmp_path / "oldapp.py").write_text(script)
    worker = servers.worker(
        "oldapp", tmp_path / "old.log", "-P", "threads", "-c", "1", "-Q", "celery,foreign",
        cwd=tmp_path,
    )  # fmt: skip
    try:
        wait_until(lambda: (tmp_path / "taken").exists(), 30, message=lambda: worker.text)
        with server.client() as client:
            wait_until(lambda: client.hlen("unacked") == 7, 10)
        refused = adopt(system)
        assert refused.returncode == 1
        assert refused.stderr.startswith("Error: A worker of stock Celery still consumes")
        assert "--force" in refused.stderr
        assert len(refused.stderr.splitlines()) == 3
    finally:
        worker.kill()
    done = adopt(system)
    assert done.stdout.splitlines()[0].startswith("Adopted 6: "), done
    assert done.stdout.splitlines()[0].endswith("; left 1 of other queues.")
    with server.client() as client:
        assert (client.hlen("unacked"), client.zcard("unacked_index")) == (1, 1)
    system.worker("--pool", "threads")
    # A worker of ours is no reason to refuse.
    assert adopt(system).returncode == 0
    wait_until(lambda: len(words(ledger)) == 6, 20, message=lambda: repr(words(ledger)))
    assert set(words(ledger).values()) == {1}


@pytest.mark.parametrize("other", [False, True], ids=["same server", "another server"])
def test_killed_in_the_middle_and_run_again(
    make_system: t.Callable[..., System],
    server: servers.Valkey,
    valkey: servers.Valkey,
    tmp_path: Path,
    other: bool,
) -> None:
    system = make_system(valkey.url if other else server.url)
    store, ledger = system.app().extensions["offload"].control.store, tmp_path / "ledger"
    old, total = stock(server.url), 3000
    with old.producer_pool.acquire() as producer:
        ids = [note(old, ledger, f"n{n}", producer=producer) for n in range(total)]
    arguments = ("--from", server.url) if other else ()
    killed = 0
    for size in (total // 10, total // 2):
        process = subprocess.Popen(adopting(system, *arguments), **around(system))
        wait_until(lambda: store.size("celery") > size, 60, 0.0005)  # noqa: B023
        process.kill()
        process.communicate()
        killed += len(old_keys(server)) > 0
        assert store.size("celery") >= size
    assert killed
    assert adopt(system, *arguments).returncode == 0
    assert old_keys(server) == []
    assert store.size("celery") == total
    assert set(store.call("ZRANGE", store.keys.queue("celery"), 0, -1)) == set(ids)
    # Once more all of it, as if the first removal had not reached the other server.
    with old.producer_pool.acquire() as producer:
        for number in range(100):
            note(old, ledger, f"n{number}", producer=producer, task_id=ids[number])
    assert "100 known already" in adopt(system, *arguments).stdout
    system.worker("--pool", "threads", "--concurrency", "8")
    wait_until(lambda: len(words(ledger)) == total, 60, message=lambda: str(len(words(ledger))))
    wait_until(lambda: store.size("celery") == 0)
    assert set(words(ledger).values()) == {1}


def test_corrupt_entries_are_kept_with_their_bytes(
    make_system: t.Callable[..., System], server: servers.Valkey, tmp_path: Path
) -> None:
    system, ledger = make_system(server.url), tmp_path / "ledger"
    first = note(stock(server.url), ledger, "first")
    raws = [
        b"", b"\xff\xfe\x00\r\n", b"[]", b"null", b"{" * 5000, b"[" * 100_000, b'{"headers": 3}',
        json.dumps({"headers": {"task": "t", "id": "\ud800"}, "properties": {}}).encode(),
        json.dumps({"headers": {"task": "t", "id": "x", "retries": float("inf")},
                    "properties": {"delivery_info": {}}, "body": ""}).encode(),
    ]  # fmt: skip
    with server.client() as client:
        client.lpush("celery", *raws)
        client.hset("unacked", "tag", b"\x80")
        client.zadd("unacked_index", {"tag": 1, "no such": 2})
    done = adopt(system)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Adopted 11: 1 queued, 0 scheduled, 0 known already, 10 dead.\n"
    assert old_keys(server) == []
    control = system.app().extensions["offload"].control
    dead = [r for r in control.newest() if r.state is JobState.DEAD]
    assert {r.error_type for r in dead} == {"UnreadableMessage"}
    with server.client() as client:
        client.connection_pool.connection_kwargs["decode_responses"] = False
        kept = {client.hget(control.store.keys.job(r.id), "raw") for r in dead}
    assert kept == {*raws, b"\x80"}
    system.worker("--pool", "solo")
    wait_until(lambda: control.get(first).state is JobState.SUCCEEDED, 20)


def test_from_our_stock_transport_with_records(
    make_system: t.Callable[..., System], server: servers.Valkey, tmp_path: Path
) -> None:
    """A record that exists takes its message, and runs; title and owner stay."""
    system, ledger = make_system(server.url), tmp_path / "ledger"
    before = system.app(OFFLOAD_BROKER_URL=server.url.replace("redis:", "redis+kombu:"))
    tasks = before.extensions["offload"].celery.tasks
    with before.test_request_context():
        job = tasks["sample.sleep"].delay(0, str(ledger))
    delayed = tasks["sample.add"].options(delay=2).delay(1, 2)
    cancelled = tasks["sample.sleep"].delay(0, str(ledger))
    cancelled.cancel()
    hint = adopt(system).stdout
    prefix = before.extensions["offload"].control.store.keys.prefix
    assert hint.splitlines()[1] == f"2 more wait under another prefix: --prefix '{prefix}'"
    done = adopt(system, "--prefix", prefix)
    assert done.stdout == "Adopted 2: 1 queued, 0 scheduled, 1 known already, 0 dead.\n", done
    system.worker("--pool", "threads")
    assert job.get(timeout=20) == "slept"
    assert delayed.get(timeout=20) == 3
    assert words(ledger) == Counter(start=1, end=1)
    assert job.record.owners
    assert cancelled.record.state is JobState.CANCELLED


def test_errors_are_short(make_system: t.Callable[..., System], valkey: servers.Valkey) -> None:
    system = make_system(valkey.url)
    away = adopt(system, "--from", f"redis://127.0.0.1:{servers.free_port()}")
    assert away.returncode == 1
    assert "The server of OFFLOAD_URL or --from is away" in away.stderr
    wrong = adopt(system, "--from", "what")
    assert wrong.stderr.startswith("Error: 'what' is not the URL of a server")
    for result in (away, wrong):
        assert "Traceback" not in result.stderr
