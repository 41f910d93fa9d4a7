"""One process of a supervisor, and what a system tells about it."""

from __future__ import annotations

import os
import sys

__all__ = ["FULL", "READY", "Process", "memory", "said"]

#: What a process writes into its pipe.
READY, FULL = b"r", b"f"


class Process:
    """A child of this process.

    :param pipe: Where it writes :data:`READY` and :data:`FULL`; -1 where nobody listens any more.
    """

    def __init__(self, pid: int, pipe: int = -1) -> None:
        self.pid, self.pipe = pid, pipe

    def hear(self) -> bytes:
        """What it has written since the last call."""
        if self.pipe < 0:
            return b""
        try:
            words = os.read(self.pipe, 64)
        except BlockingIOError:
            return b""
        if not words:
            self.close()  # or a wait for it would not wait
        return words

    def send(self, number: int) -> None:
        # Not reaped yet, so the number cannot be another process's.
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def reap(self) -> int | None:
        """Its exit code once it has ended, negative for a signal, as of ``Popen.returncode``."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pid, status = self.pid, 0
        if not pid:
            return None
        self.close()
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1


def said(code: int) -> str:
    """An exit code in words."""
    return f"ended with exit code {code}" if code >= 0 else f"was killed by {_name(-code)}"


def _name(number: int) -> str:
    try:
        from signal import Signals  # large, and not needed while all goes well

        return Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def memory(pid: int) -> float:
    """The resident memory of a process in MB; 0 if the system does not tell."""
    try:
        if sys.platform == "linux":
            with open(f"/proc/{pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1_000_000
        import subprocess  # as large as all of the rest of a program that sleeps

        output = subprocess.run(["/bin/ps", "-o", "rss=", "-p", str(pid)], capture_output=True)
        return int(output.stdout) * 1024 / 1_000_000
    except (OSError, ValueError, IndexError):
        return 0.0
