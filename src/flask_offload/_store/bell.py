"""A connection that waits for jobs, for a thread that has nothing else to do."""

from __future__ import annotations

import selectors
import socket
import time
import typing as t
from contextlib import suppress

import redis
from redis.exceptions import NoScriptError

from .deadline import Deadline
from .deliveries import fetched
from .link import StoreUnavailable

if t.TYPE_CHECKING:
    from .data import Delivery, Fetched
    from .deliveries import Deliveries

__all__ = ["Bell"]

#: Seconds for which the server waits for a marker. One that got lost with its worker costs no more.
TICK = 1
#: Seconds for which an answer may be late.
ANSWER = 2.0


class Bell:
    """Asks for the marker of some queues and for a job, in one breath.

    The server looks for the job once there is a marker, or after a second, so that no round trip is
    between the two. A worker that freezes while it waits has therefore asked for one job that it
    will not run, and whose lease has to run out: one of the next second, as it asks no more then.

    For one thread at a time, but for :meth:`interrupt`.

    :param lease: Seconds; an answer that is as old as a part of it is good for nothing.
    """

    def __init__(self, store: Deliveries, lease: float) -> None:
        self._store = store
        self._patience = TICK + min(ANSWER, lease / 3)
        self._link = store.connections.own()
        #: The queues that the server was asked for, until it answers.
        self._queues: frozenset[str] = frozenset()
        self._overdue = 0.0
        self._unwanted: list[Delivery] = []
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._inside, selectors.EVENT_READ)
        self._watched: t.Any = None

    @property
    def asked(self) -> frozenset[str]:
        """The queues of the question that is not answered yet."""
        return self._queues

    def ask(self, queues: t.Sequence[str], fetch: tuple[t.Any, ...]) -> None:
        """Ask for a marker, and for what there is then.

        :param fetch: As :meth:`.Deliveries.fetch_command` makes it.
        :raises StoreUnavailable: The server is away.
        """
        link = self._link
        self._store.connections.check(link)
        link.open(Deadline.after(ANSWER))
        opened = link.connection._sock
        if opened is not self._watched:
            self._watch_no_more()
            self._selector.register(opened, selectors.EVENT_READ)
            self._watched = opened
        wait = ("BRPOP", *(self._store.keys.wake(queue) for queue in queues), TICK)
        self._queues = frozenset(queues)
        self._overdue = time.monotonic() + self._patience
        link.send(wait, fetch)

    def hear(self, until: float) -> Fetched | bool:
        """Wait for the answer.

        :param until: By the monotonic clock.
        :return: The answer; true if it is that time, or the server has to be asked once more; or
            false if the wait was interrupted.
        :raises StoreUnavailable: The server is away; :meth:`close` it.
        """
        left = min(until, self._overdue) - time.monotonic()
        # It counts in whole milliseconds, upwards; the rest of the last one is slept.
        ready = self._selector.select(max(0.0, left - 0.001))
        if not ready and (rest := until - time.monotonic()) > 0:
            time.sleep(min(0.001, rest))
        late = time.monotonic() > self._overdue
        if any(key.fileobj is self._inside for key, _ in ready):
            self._hush()
            return False
        if ready and not late:
            return self._read() or True
        if late:
            # Of the server, or of this process, which was stopped: others have its jobs by now.
            raise StoreUnavailable("The server of OFFLOAD_URL did not answer in time.")
        return True

    def _read(self) -> Fetched | None:
        link, refused, at = self._link, None, time.monotonic()
        link.within(Deadline.after(ANSWER))
        try:
            try:
                link.read()
            except redis.ResponseError as error:
                refused = error
            found = fetched(link.read(), at)
        except NoScriptError:
            found = None
        except redis.ResponseError as error:
            refused = refused or error
            found = None
        self._queues = frozenset()
        if refused is not None:
            # Without a wait; what there was all the same is for take_back.
            self._unwanted = found.jobs if found else []
            raise StoreUnavailable(f"The server refused to wait for jobs: {refused}") from refused
        return found

    def interrupt(self) -> None:
        """End the wait of the thread that waits, or of the next one."""
        with suppress(OSError):  # full: there are enough of them
            self._outside.send(b"!")

    def take_back(self) -> list[Delivery]:
        """Take back the question.

        :return: The jobs that the server had handed out by then.
        """
        found, jobs = None, self._unwanted
        if self._queues and self._link.connection.is_connected:
            # Only the server knows whether an answer is on its way. It sends all that it has
            # answered before it learns that nothing more will be asked, and closes.
            with suppress(StoreUnavailable, OSError):
                socket.socket.shutdown(self._link.connection._sock, socket.SHUT_WR)
                found = self._read()
        self.close()
        self._unwanted = []
        return [*jobs, *found.jobs] if found else jobs

    def pause(self, seconds: float) -> None:
        """Wait for that long, unless interrupted."""
        if self._selector.select(seconds):
            self._hush()

    def _hush(self) -> None:
        with suppress(BlockingIOError):
            self._inside.recv(4096)

    def close(self) -> None:
        """Hang up; the next question opens it again."""
        self._watch_no_more()
        self._queues = frozenset()
        self._link.connection.disconnect()

    def _watch_no_more(self) -> None:
        if self._watched is not None:
            self._selector.unregister(self._watched)
            self._watched = None
