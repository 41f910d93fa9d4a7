"""Embedded servers in tests: the processes of one directory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flask_offload._server
from flask_offload._server import EmbeddedServer
from waiting import wait_until

SOURCE = Path(flask_offload._server.__file__).parent
SCRIPT = Path(__file__).with_name("embedded_user.py")


def kill(pid: int | None, number: signal.Signals = signal.SIGKILL) -> None:
    assert pid, "does not run"
    os.kill(pid, number)


class User:
    """A process that uses an embedded server; see ``embedded_user.py`` for its commands."""

    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, SCRIPT, SOURCE, directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environ,
        )

    def send(self, command: str) -> None:
        assert self.process.stdin is not None
        print(command, file=self.process.stdin, flush=True)

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def __call__(self, command: str) -> str:
        self.send(command)
        return self.answer()

    def kill(self) -> None:
        self.process.kill()
        with self.process:  # waits, and closes the pipes
            pass


class Place:
    """A directory with an embedded server, and the processes that use it.

    :param linger: Seconds for which an unused server is kept.
    """

    def __init__(self, directory: Path, linger: float = 0.1, **environ: str) -> None:
        self.server = EmbeddedServer(directory)
        self.environ = {"FLASK_OFFLOAD_LINGER": str(linger), **environ}
        self.users: list[User] = []

    def user(self) -> User:
        self.users.append(User(self.server.directory, self.environ))
        return self.users[-1]

    def processes(self) -> dict[int, str]:
        """All keepers and servers of the directory that live, also those without a lock."""
        listing = subprocess.run(
            ["ps", "-A", "-ww", "-o", "pid=,stat=,args="],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        names = (str(self.server.directory) + "/", str(self.server.socket_path))
        found = {}
        for pid, state, command in (line.split(None, 2) for line in listing.splitlines()):
            ours = any(f"{name}" in f"{command}/" for name in names)
            if ours and str(SCRIPT) not in command and not state.startswith("Z"):
                found[int(pid)] = command
        return found

    def wait_until_gone(self, timeout: float = 10.0) -> None:
        """Wait until no process of the server is left."""
        wait_until(lambda: not self.processes(), timeout, message=lambda: str(self.processes()))

    def close(self) -> None:
        """Kill all users, and whatever of the server does not go by itself then."""
        for user in self.users:
            user.kill()
        self.users.clear()
        try:
            self.wait_until_gone(5)
        except AssertionError:
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
            raise
        # Nothing else removes a directory that stands in for one with a long path.
        if self.server.socket_path.parent != self.server.directory:
            shutil.rmtree(self.server.socket_path.parent, ignore_errors=True)


Places = Callable[..., Place]


@contextmanager
def open_places(root: Path) -> Iterator[Places]:
    """Make places in directories below a root, and close them at the end."""
    made: list[Place] = []

    def make(name: str = "offload", **options: Any) -> Place:
        made.append(Place(root / name, **options))
        return made[-1]

    try:
        yield make
    finally:
        for place in made:
            place.close()
