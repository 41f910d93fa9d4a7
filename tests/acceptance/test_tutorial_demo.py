"""``make demo``: what it starts, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tutorial import Person, copy_to, environment, running
from waiting import wait_until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_to(tmp_path_factory.mktemp("demo"))


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def demo(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "demo.py"],
        cwd=folder,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def started_in(folder: Path) -> dict[int, str]:
    """The processes that work in ``folder``, or were started with it as an argument."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                # Nothing for a process that has ended and waits for its parent.
                command = (entry / "cmdline").read_text().replace("\0", " ")
                if (entry / "cwd").readlink() == folder or str(folder) in command:
                    found[int(entry.name)] = command
        except OSError:
            continue
    return found


@pytest.mark.parametrize("port", ["abc", "0", "-1", "65536", "", "5000.5"])
def test_bad_port_says_how_to_choose(folder: Path, port: str) -> None:
    done = demo(folder, PORT=port)
    assert done.returncode == 1
    assert done.stderr == f"PORT={port} is not a port. Choose one like this: PORT=5051 make demo\n"


def test_busy_port_says_how_to_choose(folder: Path, busy_port: int) -> None:
    done = demo(folder, PORT=str(busy_port))
    assert done.returncode == 1
    assert re.fullmatch(
        rf"Port {busy_port} cannot be used \(.*\)\. Choose another one: PORT=\d+ make demo\n",
        done.stderr,
    )


def test_second_demo_says_where_the_first_is(folder: Path) -> None:
    instance = folder / "instance"
    instance.mkdir(exist_ok=True)
    with (instance / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("http://127.0.0.1:5000/tasks")
        lock.flush()
        done = demo(folder, PORT="5001")
    assert done.returncode == 1
    assert done.stderr == (
        "The demo is already running at http://127.0.0.1:5000/tasks. Stop it there with Ctrl-C.\n"
    )


def test_services_on_a_busy_port_say_so_in_one_line(folder: Path, busy_port: int) -> None:
    code = f"import services; services.SMTP_PORT = {busy_port}; services.main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(rf"Port {busy_port} cannot be used \(.*\)\.\n", done.stderr)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to find processes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_demo_runs_and_stops_whole(folder: Path, number: signal.Signals) -> None:
    port = free_port()
    command = (sys.executable, "demo.py")
    with running("demo", *command, folder=folder, PORT=str(port), DEMO_SECONDS="1") as program:
        address = program.wait_for(r"(http://127\.0\.0\.1:\d+)/tasks")[1]
        assert address == f"http://127.0.0.1:{port}"
        program.wait_for(r"\bready\.")
        program.wait_for(r"Running on http")
        with Person(address) as person:
            answer = person.fill("/signup", name="Ada", email="ada@example.org")
            person.wait_for_job(answer.headers["Location"])
            assert "Hello Ada," in person.read("/outbox")

        second = demo(folder, PORT=str(free_port()))
        assert second.returncode == 1
        assert f"already running at {address}/tasks" in second.stderr

        assert program.stop(number) == 0

    rest = started_in(folder).values()
    assert all("_keeper.py" in command or "valkey-server" in command for command in rest), rest
    if number == signal.SIGINT:
        # The keeper of the embedded server lingers for some seconds, and then goes, too.
        wait_until(lambda: not started_in(folder), 30, message=lambda: str(started_in(folder)))
