"""``flask offload doctor``, and the worker that refuses what it finds."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

import servers
from flask_offload._store.checks import judge
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System

COMMAND = [sys.executable, "-m", "flask", "--app", "sample", "offload", "doctor"]


@pytest.fixture(params=servers.KINDS)
def server(request: pytest.FixtureRequest) -> t.Iterator[servers.Valkey]:
    with servers.of_kind(request.param) as server:
        yield server


def doctor(system: System, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        COMMAND, cwd=servers.HERE, env=servers.environment(system.env | env),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def refused(system: System) -> str:
    """What a worker says that does not start."""
    worker = system.worker("--pool", "solo", ready=False)
    wait_until(lambda: worker.popen.poll() is not None, 30, message=lambda: worker.text)
    assert worker.popen.returncode == 1
    assert "Traceback" not in worker.text
    return worker.text.partition("Error: ")[2]


def test_queues_and_workers(make_system: t.Callable[..., System], server: servers.Valkey) -> None:
    system = make_system(server.url)
    first = doctor(system)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.splitlines()[-1] == "Nothing needs mending."
    state = system.app().extensions["offload"]
    state.celery.tasks["sample.add"].options(queue="a" * 60).delay(1)
    state.celery.tasks["sample.add"].options(delay=60).delay(1)
    state.celery.store.pause("slow")
    waits = doctor(system)
    assert waits.returncode == 1
    lines = {line[:14].strip(): line[14:] for line in waits.stdout.splitlines()}
    assert lines["Server"].startswith(("Valkey ", "Redis 7.0"))
    assert lines["On disk"] == "append-only file"
    assert lines["When full"] == "noeviction (no limit)"
    assert (lines["Waiting"], lines["Scheduled"]) == ("1", "1")
    assert lines["Oldest waits"].startswith(("0 s", "1 s", "2 s", "3 s"))
    assert "  slow  " in waits.stdout
    assert "0  paused" in waits.stdout
    assert "no worker listens there" in waits.stdout
    assert max(map(len, waits.stdout.splitlines())) <= 80
    assert "\x1b" not in waits.stdout
    system.worker("--pool", "threads", "-Q", f"celery,{'a' * 60}")
    wait_until(lambda: state.control.overview().queues[0].waiting == 0, 20)
    mended = doctor(system)
    assert mended.returncode == 0
    assert max(map(len, mended.stdout.splitlines())) <= 80
    assert "w0@test/" in mended.stdout


def test_eviction(make_system: t.Callable[..., System], server: servers.Valkey) -> None:
    system = make_system(server.url)
    with server.client() as client:
        client.config_set("maxmemory-policy", "volatile-ttl")
        assert doctor(system).returncode == 0
        client.config_set("maxmemory", "100mb")
    found = doctor(system)
    assert found.returncode == 1
    assert "maxmemory-policy volatile-ttl" in found.stdout
    text = refused(system)
    assert len(text.splitlines()) <= 4
    assert "CONFIG SET maxmemory-policy noeviction" in text
    assert "OFFLOAD_ALLOW_EVICTION=True" in text
    system.worker("--pool", "solo", OFFLOAD_ALLOW_EVICTION="True")
    assert doctor(system, OFFLOAD_ALLOW_EVICTION="1").returncode == 0


def test_read_only_replica(
    make_system: t.Callable[..., System], server: servers.Valkey, valkey: servers.Valkey
) -> None:
    system = make_system(server.url)
    with server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", str(valkey.port))
        wait_until(lambda: client.info("replication")["role"] == "slave")
        assert doctor(system).returncode == 1
        text = refused(system)
    assert text.startswith("OFFLOAD_URL names a read-only replica.")
    assert f"set OFFLOAD_URL to the primary: 127.0.0.1:{valkey.port}." in text


def test_wrong_password_wrong_url_wrong_database(
    make_system: t.Callable[..., System], server: servers.Valkey
) -> None:
    system = make_system(server.url)
    with server.client() as client:
        client.config_set("requirepass", "right")
    for url in (server.url, server.url.replace("//", "//:wrong@")):
        system.env["OFFLOAD_URL"] = url
        found = doctor(system)
        assert found.returncode == 1
        assert "The server refuses the user or password of OFFLOAD_URL." in found.stdout
        assert "redis://user:password@host:6379/0" in found.stdout
        assert "wrong" not in found.stdout
        assert refused(system).startswith("The server refuses the user or password")
    system.env["OFFLOAD_URL"] = server.url.replace("//", "//:right@").replace("/0", "/99")
    found = doctor(system)
    assert "see that OFFLOAD_URL names the right server and database" in found.stdout
    assert found.returncode == 1
    for url in (f"redis://127.0.0.1:{servers.free_port()}", "redis://no.such.host.invalid"):
        system.env["OFFLOAD_URL"] = url
        found = doctor(system)
        assert "The server of OFFLOAD_URL cannot be reached." in found.stdout
        assert (found.returncode, found.stderr) == (1, "")
    system.env["OFFLOAD_URL"] = "redis://:pa/ss@host"
    found = doctor(system)
    assert found.returncode == 1
    assert "OFFLOAD_URL has no number for a port" in found.stderr


def test_server_that_is_away_does_not_stop_a_worker_but_one_that_is_wrong_does(
    make_system: t.Callable[..., System], own_valkey: servers.Valkey
) -> None:
    system = make_system(own_valkey.url)
    own_valkey.stop()
    worker = system.worker("--pool", "solo", ready=False)
    wait_until(lambda: "cannot be reached" in worker.text, 30, message=lambda: worker.text)
    own_valkey.start()
    wait_until(lambda: "ready." in worker.text, 30, message=lambda: worker.text)
    worker.stop()
    own_valkey.stop()
    worker = system.worker("--pool", "solo", ready=False)
    wait_until(lambda: "cannot be reached" in worker.text, 30, message=lambda: worker.text)
    own_valkey._command += ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]
    own_valkey.start()
    wait_until(lambda: worker.popen.poll() is not None, 30, message=lambda: worker.text)
    assert "OFFLOAD_ALLOW_EVICTION" in worker.text


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_on_a_terminal_only(
    system: System, tmp_path: Path, env: dict[str, str], coloured: bool
) -> None:
    mine, theirs = pty.openpty()
    environment = servers.environment(system.env | {"TERM": "xterm"})
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        COMMAND, cwd=servers.HERE, env=environment | env, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(mine, 4096):
            text += chunk
    except OSError:
        pass  # the terminal's way to say that nobody writes any more
    os.close(mine)
    assert process.wait(30) == 0
    assert b"Nothing needs mending." in text
    assert (b"\x1b[" in text) is coloured


@pytest.mark.parametrize(
    ("info", "old"),
    [
        ({"redis_version": "6.2.14"}, True),
        ({"redis_version": "7.0.0"}, False),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.5"}, False),
        ({"redis_version": "7.2.4", "valkey_version": "7.1.0"}, True),
    ],
)
def test_too_old(info: dict[str, str], old: bool) -> None:
    faults = judge(info).faults
    assert [fault.what.endswith("is too old.") for fault in faults] == [True] * old
    assert all("upgrade it to" in str(fault) for fault in faults)
