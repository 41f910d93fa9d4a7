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

from ..._store import Bell, StoreUnavailable

if t.TYPE_CHECKING:
    from ..._store import Fetched
    from ..message import Message
    from .threads import ThreadsLane

__all__ = ["Pickup", "Source"]

log = logging.getLogger("flask_offload")

#: Seconds until the next attempt when the server is away: at first, and at most.
RETRY, PATIENCE = 0.1, 2.0
#: Seconds before a delayed job is due that the server is asked for it, unless it is due sooner.
EARLY, SOON = 0.001, 0.003


class Source(t.Protocol):
    """Where a worker consumes: the queues, what it may have of them, and Celery's own way."""

    def next_queues(self) -> list[str]:
        """The queues that have a line, in the order of this turn."""
        ...

    def room(self) -> int:
        """How many more messages Celery's own way takes."""
        ...

    def in_pool(self) -> int:
        """How many jobs are on Celery's own way."""
        ...

    def took_from(self, queue: str) -> None:
        """Note that it was the turn of a queue."""
        ...

    def deliver(self, messages: list[tuple[Message, str]]) -> None:
        """Have the event loop deliver messages. For any thread."""
        ...


class Pickup:
    """The wait of one worker.

    :param lane: Whose threads wait.
    """

    def __init__(self, lane: ThreadsLane) -> None:
        self._lane = lane
        self._bell = Bell(lane.store, lane.lease)
        self._source: Source | None = None
        self._queues: list[str] = []
        #: When to ask for the next delayed job, by the monotonic clock; the first time, at once.
        self.ask_at = 0.0
        self._pause = 0.0

    @property
    def in_pool(self) -> int:
        """How many jobs are on Celery's own way."""
        return 0 if self._source is None else self._source.in_pool()

    @property
    def open(self) -> bool:
        """Whether there is something to wait for."""
        return bool(self._queues) and _alive()

    def next_queues(self) -> list[str]:
        """The queues that are consumed, in the order of this turn."""
        source = self._source
        return source.next_queues() if source is not None and self._queues else []

    def took_from(self, queue: str) -> None:
        """Note that it was the turn of a queue."""
        if self._source is not None:
            self._source.took_from(queue)

    def watch(self, source: Source, queues: list[str]) -> None:
        """Wait for these queues from now on, or for none."""
        if queues or source is self._source:
            self._source, self._queues = source, queues
            self._bell.interrupt()

    def stop(self) -> None:
        """Wait no more; whoever waits leaves."""
        self._queues = []
        self._bell.interrupt()

    def next_is_due(self, found: Fetched) -> None:
        """Note what the server said of the next delayed job."""
        if found.due_in is None:
            self.ask_at = math.inf
        else:
            # The first question after a while takes longer than those right after it, and is
            # asked early; the answer tells when to ask the next one.
            self.ask_at = found.at + found.due_in - (EARLY if found.due_in > SOON else 0)

    def wait(self) -> None:
        """Wait until there are jobs for the lane, or there is another use for the thread."""
        try:
            while self._lane.may_wait():
                self._take(self._hear())
            if self._bell.asked and not self._lane.another_waits():
                # Nobody would hear the answer.
                self._take_back()
            self._pause = 0.0
        except StoreUnavailable as error:
            self._away(error)
        except Exception:
            # What one look met must not end all others.
            log.exception("No jobs could be fetched.")
            self._away(None)

    def _hear(self) -> Fetched | None:
        """What the server has; nothing if the wait was interrupted."""
        bell, lane, source = self._bell, self._lane, self._source
        queues = self.next_queues()
        if source is None or not queues:
            return None
        if bell.asked and bell.asked != frozenset(queues):
            self._take_back()
        if not bell.asked:
            if self.ask_at <= time.monotonic():
                # Before there is another question: of two, the later could be handed the job that
                # comes first, which would go back, behind the one that this thread then runs.
                return self._look(source, queues)
            # This thread asks for itself only: what the others do when the answer comes is not
            # known yet.
            bell.ask(queues, lane.fetch_command(queues, min(1, source.room()), 1, waits=True))
        answer = bell.hear(self.ask_at)
        if answer is False:
            return None
        if answer is True:
            return self._look(source, queues)
        return answer

    def _look(self, source: Source, queues: list[str]) -> Fetched:
        lane = self._lane
        return lane.look(queues, max(1, source.room()), lane.idle, waits=True)

    def _take(self, found: Fetched | None) -> None:
        """Put jobs into the lane, and what is not for it on Celery's way."""
        source = self._source
        if found is None or source is None:
            return
        if self._lane.stopped or not self._queues:
            self._lane.give_back(found.jobs)
            return
        rest = self._lane.take(found)
        if rest:
            source.deliver(rest)

    def _take_back(self) -> None:
        self._lane.give_back(self._bell.take_back())

    def _away(self, error: StoreUnavailable | None) -> None:
        if not self._pause and error is not None:
            log.warning("No jobs can be fetched: %s", error)
        self._pause = min(PATIENCE, self._pause * 2 or RETRY)
        self.ask_at = 0.0  # whatever became due meanwhile
        self._take_back()
        self._bell.pause(self._pause)


def _alive() -> bool:
    # An interpreter that ends waits for the threads of its pools.
    return threading.main_thread().is_alive()
