"""The places of the processes of a supervisor."""

from __future__ import annotations

import time

from .process import Process, memory

__all__ = ["Slot"]

#: Seconds: the first pause before a restart, the longest, and for how long a process must have
#: been at work for the pauses to begin anew.
FIRST_PAUSE, LONGEST_PAUSE, STEADY = 0.5, 30.0, 30.0


class Slot:
    """The place of one process.

    :ivar working: The process that is at work.
    :ivar coming: One that was started and is not ready yet.
    :ivar renew: Why :attr:`working` is to be replaced.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.working: Process | None = None
        self.coming: Process | None = None
        self.renew = ""
        #: Ends without a cause of ours, one soon after the other.
        self._failures = 0
        self.start_at = 0.0
        self.ready_at = 0.0

    @property
    def processes(self) -> list[Process]:
        return [process for process in (self.coming, self.working) if process is not None]

    def is_due(self) -> bool:
        """Whether a process is to be started here."""
        lacks = self.working is None or bool(self.renew)
        return lacks and self.coming is None and time.monotonic() >= self.start_at

    def look_at_memory(self, limit: float) -> None:
        used = memory(self.working.pid) if self.working is not None and not self.renew else 0.0
        if used > limit:
            self.renew = f"which uses {used:.0f} MB (--max-memory {limit:g})"

    def clear(self) -> None:
        self.working = self.coming = None

    def take_over(self) -> Process | None:
        """Let the coming process be the one at work; the one that was."""
        before, self.working, self.coming = self.working, self.coming, None
        self.renew, self.ready_at = "", time.monotonic()
        return before

    def fail(self) -> float:
        """Note an end without a cause of ours; the pause before the next start."""
        now = time.monotonic()
        if self.ready_at and now - self.ready_at > STEADY:
            self._failures = 0
        self.ready_at = 0.0
        self._failures += 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (min(self._failures, 16) - 1))
        self.start_at = now + pause
        return pause
