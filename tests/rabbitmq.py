"""A RabbitMQ of the tests' own, on free ports, from Debian's ``rabbitmq-server``."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import tempfile
import typing as t
from pathlib import Path

import servers
from waiting import wait_until

PROGRAM = shutil.which("rabbitmq-server") or "/usr/sbin/rabbitmq-server"
HOW_TO_GET_IT = "needs RabbitMQ: apt-get install rabbitmq-server"


def installed() -> bool:
    return Path(PROGRAM).exists()


class RabbitMQ:
    def __init__(self, folder: Path, settings: str = "") -> None:
        self.port, dist = servers.free_port(), servers.free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        self.folder = folder
        self._env = {
            "RABBITMQ_NODENAME": f"offload{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(dist),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "feature_flags"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "HOME": str(folder),
        }
        (folder / "plugins").write_text("[].\n")
        usual = "loopback_users = none\nlog.console = false\n"
        (folder / "rabbitmq.conf").write_text(usual + settings)
        with contextlib.suppress(KeyError, PermissionError):
            # Started by root, Debian's script becomes this user.
            account = pwd.getpwnam("rabbitmq")
            for path in (folder, *folder.iterdir()):
                os.chown(path, account.pw_uid, account.pw_gid)
        self._process: servers.Process | None = None

    def start(self) -> RabbitMQ:
        self._process = servers.Process(PROGRAM, log=self.folder / "console.log", env=self._env)
        wait_until(self._answers, 90, 0.2, message=lambda: f"RabbitMQ: {self._text()}")
        return self

    def _text(self) -> str:
        return "".join(p.read_text(errors="replace") for p in self.folder.rglob("*.log"))[-3000:]

    def _answers(self) -> bool:
        import kombu

        try:
            with kombu.Connection(self.url, connect_timeout=2) as connection:
                connection.connect()
        except OSError:
            return False
        return True

    @property
    def pid(self) -> int:
        """The node's own process, which is not a child of ours."""
        return int((self.folder / "pid").read_text())

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def stop(self) -> None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            self.signal(signal.SIGKILL)
            wait_until(lambda: not _alive(self.pid))
        if self._process:
            self._process.kill()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def rabbitmq(settings: str = "") -> t.Iterator[RabbitMQ]:
    """A node of its own, with lines of ``rabbitmq.conf``."""
    # Not below pytest's own folder, which the user "rabbitmq" may not enter.
    folder = Path(tempfile.mkdtemp(prefix="offload-rabbitmq-"))
    server = RabbitMQ(folder, settings)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
