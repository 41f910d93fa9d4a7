"""The server that all share, with the options of the embedded one, and its counters."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

import redis

from flask_offload._keeper import TUNABLES
from flask_offload._server_setup import OPTIONS, find_binary

__all__ = ["Reading", "Server"]

#: Over TCP, as every peer can; and synced by itself, as no keeper of ours is there to do it.
OTHER = {"appendfsync": "everysec", "bind": "127.0.0.1"}
NOT_HERE = {"unixsocketperm", "port"}


@dataclass(frozen=True)
class Reading:
    """The server's counters at one moment.

    :param calls: How often each command ran; those inside of scripts count, too.
    :param reads: How often it read from a connection: the round trips, a pipeline being one.
    :param cpu: Seconds of processor time.
    :param memory: Bytes in use.
    """

    calls: dict[str, int]
    reads: int
    cpu: float
    memory: int

    def since(self, before: Reading, jobs: float) -> dict[str, t.Any]:
        """What each of ``jobs`` jobs took."""
        calls = {
            name: round((count - before.calls.get(name, 0)) / jobs, 3)
            for name, count in self.calls.items()
            if (count - before.calls.get(name, 0)) / jobs >= 0.01
        }
        return {
            "commands": round(sum(calls.values()), 2),
            "by_command": calls,
            "round_trips": round((self.reads - before.reads) / jobs, 2),
            "server_us": (self.cpu - before.cpu) / jobs * 1e6,
        }


class Server:
    """A Valkey on a free port, with its append-only file in a directory of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="offload-bench-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{port}/0"
        self.options = {k: v for k, v in OPTIONS.items() if k not in NOT_HERE} | OTHER
        self._data = self.folder / "data"
        self._command = [
            os.environ.get("BENCH_SERVER") or find_binary(),
            "--port",
            port,
            "--dir",
            str(self._data),
        ]
        for name, value in self.options.items():
            self._command += [f"--{name}", value]
        self.client: redis.Redis = redis.Redis.from_url(self.url)
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def _start(self) -> None:
        self._data.mkdir()
        command = self._command
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env={"GLIBC_TUNABLES": TUNABLES, **os.environ},
        )
        deadline = time.monotonic() + 10
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                raise SystemExit(f"The server did not start: {' '.join(command)}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError):
            return bool(self.client.ping())
        return False

    @property
    def version(self) -> str:
        info: dict[str, t.Any] = self.client.info("server")
        name = info.get("server_name", "redis")
        return f"{name} {info.get(f'{name}_version', info['redis_version'])}"

    def reset(self) -> None:
        """Start it anew, with nothing in it, so that no round pays for the one before.

        To empty it would not do: its heap stays in pieces, and each round takes a little longer.
        """
        self._end()
        shutil.rmtree(self._data)
        self._start()

    def _end(self) -> None:
        self.client.connection_pool.disconnect()
        if self._process:
            self._process.kill()
            self._process.wait()

    def read(self) -> Reading:
        info: dict[str, t.Any] = self.client.info("everything")
        calls = {
            name.removeprefix("cmdstat_"): value["calls"]
            for name, value in info.items()
            # Who asks for the counters does not count.
            if name.startswith("cmdstat_") and name != "cmdstat_info"
        }
        cpu = info["used_cpu_user"] + info["used_cpu_sys"]
        return Reading(calls, info["total_reads_processed"], cpu, info["used_memory"])

    def settle(self) -> None:
        """Wait until it no longer writes its append-only file anew, as it does each time that it
        has doubled: meanwhile each page of memory that it touches is copied."""
        while self.client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.1)

    def stop(self) -> None:
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)
