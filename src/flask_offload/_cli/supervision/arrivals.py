"""The signals that a supervisor gets, one after the other, and its wait for them."""

from __future__ import annotations

import os
import select

from .bare import signal

TYPE_CHECKING = False  # typing is large, beside a program that sleeps
if TYPE_CHECKING:
    import typing as t

__all__ = ["SIGNALS", "Arrivals"]

#: Signals that the supervisor acts on.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD)


class Arrivals:
    """Signals of this process from here on, in the order in which they came."""

    def __init__(self) -> None:
        self._received: list[int] = []
        self._wake, self._wake_end = self.pipes = os.pipe()
        for end in self.pipes:
            os.set_blocking(end, False)
        # A signal ends the wait at once, also one that comes just before it.
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda number, _: self._received.append(number))
        # They were blocked while the program replaced itself.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def __iter__(self) -> t.Iterator[int]:
        while self._received:
            yield self._received.pop(0)

    def wait(self, others: list[int], seconds: float) -> None:
        """Until one comes, or something into one of the other pipes; or as long."""
        select.select([self._wake, *others], [], [], seconds)
        try:
            os.read(self._wake, 512)
        except BlockingIOError:
            pass

    def __enter__(self) -> bool:
        """Let those that come wait for the end of the block, or for another program.

        :return: Whether none has come before.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        return not self._received

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
