"""How the threads of a worker hear of jobs: one that has nothing to do waits for all.

It waits on a connection of its own, fetches, has another one wait, and runs a job itself: nothing
is handed from thread to thread, and Celery's event loop has no part in it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import typing as t

from .._store import Bell, StoreUnavailable

if t.TYPE_CHECKING:
    from .lane import Lane
    from .message import Message

__all__ = ["Pickup", "Source"]

log = logging.getLogger("flask_offload")

#: Seconds until the next attempt when the server is away: at first, and at most.
RETRY, PATIENCE = 0.1, 2.0


class Source(t.Protocol):
    """Where a worker consumes: the queues, what it may have of them, and Celery's own way."""

    def next_queues(self) -> list[str]:
        """The queues that have a line, in the order of this turn."""

    def room(self) -> int:
        """How many more messages Celery's own way takes."""

    def in_pool(self) -> int:
        """How many jobs are on Celery's own way."""

    def took_from(self, queue: str) -> None:
        """Note that it was the turn of a queue."""

    def deliver(self, messages: list[tuple[Message, str]]) -> None:
        """Have the event loop deliver messages. For any thread."""


class Pickup:
    """The wait of one worker.

    :param lane: Whose threads wait.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._bell = Bell(lane.store)
        self._source: Source | None = None
        self._queues: list[str] = []
        #: When the next delayed job is due, by the monotonic clock; the first look is at once.
        self.due_at = 0.0
        self._pause = 0.0

    @property
    def in_pool(self) -> int:
        """How many jobs are on Celery's own way."""
        return 0 if self._source is None else self._source.in_pool()

    @property
    def open(self) -> bool:
        """Whether there is something to wait for."""
        return bool(self._queues) and _alive()

    def watch(self, source: Source, queues: list[str]) -> None:
        """Wait for these queues from now on, or for none."""
        if queues or source is self._source:
            self._source, self._queues = source, queues
            self._bell.interrupt()

    def stop(self) -> None:
        """Wait no more; whoever waits leaves."""
        self._queues = []
        self._bell.interrupt()

    def next_is_due_in(self, seconds: float | None) -> None:
        """Note what the server said of the next delayed job."""
        self.due_at = math.inf if seconds is None else time.monotonic() + seconds

    def wait(self) -> None:
        """Wait until there are jobs for the lane, or there is another use for the thread."""
        try:
            while self._lane.may_wait():
                if self._bell.wait(self._queues, self.due_at) and self._look():
                    break
            self._pause = 0.0
            if not self._lane.another_waits():
                # Nobody listens to the answer: the marker may be for another worker.
                self._bell.pass_on()
        except StoreUnavailable as error:
            self._away(error)
        except Exception:
            # What one look met must not end all others.
            log.exception("No jobs could be fetched.")
            self._away(None)

    def _look(self) -> bool:
        """Fetch; whether the lane has something."""
        source = self._source
        if source is None or not self._lane.may_wait():
            return False
        queues = source.next_queues()
        if not queues:
            return False
        messages = self._lane.fetch(queues, max(1, source.room()), self._lane.idle)
        self._bell.looked()
        if messages:
            source.took_from(messages[0][1])
            source.deliver(messages)
        return self._lane.has_jobs

    def _away(self, error: StoreUnavailable | None) -> None:
        if not self._pause and error is not None:
            log.warning("No jobs can be fetched: %s", error)
        self._pause = min(PATIENCE, self._pause * 2 or RETRY)
        self.due_at = 0.0  # whatever became due meanwhile
        self._bell.pause(self._pause)


def _alive() -> bool:
    # An interpreter that ends waits for the threads of its pools.
    return threading.main_thread().is_alive()
