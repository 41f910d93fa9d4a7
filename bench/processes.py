"""Processes of a benchmark: workers and those that enqueue. Linux only, by ``/proc``."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
import typing as t
from pathlib import Path

from .environments import ROOT, python_of

__all__ = ["BenchError", "Client", "Workers"]


class BenchError(Exception):
    """A measurement that did not come about; the others go on."""


class Workers:
    """The processes of one or more commands, and of all that they start."""

    def __init__(self, commands: t.Sequence[t.Sequence[str]], env: dict[str, str], log: Path):
        self.log = log
        self._popens: list[subprocess.Popen[bytes]] = []
        with log.open("wb") as output:
            try:
                for command in commands:
                    popen = subprocess.Popen(
                        list(command),
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=env,
                        cwd=log.parent,
                        start_new_session=True,
                    )
                    self._popens.append(popen)
            except OSError as error:
                self.kill()
                raise BenchError(f"a worker does not start: {error}") from error

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def pids(self) -> list[int]:
        """All of them, with their children, whatever session these are in."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    stat = (entry / "stat").read_text()
                    parent = int(stat.rpartition(")")[2].split()[1])
                    children.setdefault(parent, []).append(int(entry.name))
        found = [popen.pid for popen in self._popens if popen.poll() is None]
        for pid in found:
            found += children.get(pid, [])
        return found

    def check(self) -> None:
        """:raises BenchError: One of them has ended."""
        for popen in self._popens:
            if popen.poll() is not None:
                raise BenchError(f"a worker ended with status {popen.returncode}: {self.tail()}")

    def tail(self) -> str:
        return tail(self.log)

    def memory(self, kind: str = "Pss") -> int:
        """Bytes, where memory that is shared counts by its share (PSS), or in full (Rss)."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith(f"{kind}:"):
                        total += int(line.split()[1]) * 1024
        return total

    def cpu(self) -> float:
        """Seconds of processor time: of the threads that are alive, to the nanosecond, and of the
        children that have ended, in clock ticks."""
        total, ticks = 0, os.sysconf("SC_CLK_TCK")
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += (int(fields[13]) + int(fields[14])) * 1_000_000_000 // ticks
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    total += int(task.read_text().split()[0])
        return total / 1e9

    def kill(self) -> None:
        """Kill them; nothing of theirs is looked at any more."""
        pids = self.pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for popen in self._popens:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()


def tail(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-600:]


class Client:
    """``bench.client`` for one verb: ready after the block is entered, and idle until ``go``."""

    def __init__(
        self, peer: str, verb: str, env: dict[str, str], log: Path, **arguments: t.Any
    ) -> None:
        self._log = log
        self._what = f"{verb} of {peer}"
        command = [str(python_of(peer)), "-m", "bench.client", peer, verb, json.dumps(arguments)]
        with log.open("wb") as errors:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=env,
                cwd=ROOT,
                text=True,
                start_new_session=True,
            )

    def __enter__(self) -> Client:
        try:
            self._answer(60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._popen.communicate("\n", timeout=1)
        # One that is in the middle of its work does not listen.
        self._popen.kill()
        self._popen.wait()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def begin(self) -> None:
        """Have it do its work."""
        assert self._popen.stdin
        self._popen.stdin.write("\n")
        self._popen.stdin.flush()

    def go(self, timeout: float = 120) -> t.Any:
        """Do it; the outcome."""
        self.begin()
        return self._answer(timeout)

    def _answer(self, timeout: float) -> t.Any:
        assert self._popen.stdout
        until = time.monotonic() + timeout
        while not select.select([self._popen.stdout], [], [], 0.5)[0]:
            if time.monotonic() > until:
                raise BenchError(f"{self._what} took longer than {timeout:.0f} s")
        line = self._popen.stdout.readline()
        if not line:
            text = f"{self._what} failed with status {self._popen.wait()}"
            raise BenchError(f"{text}: {tail(self._log)}")
        return json.loads(line)
