"""A connection that waits for jobs, for one who has nothing else to do."""

from __future__ import annotations

import selectors
import socket
import time
import typing as t
from contextlib import suppress

import redis

from .deadline import Deadline
from .link import Link, StoreUnavailable

if t.TYPE_CHECKING:
    from .deliveries import Deliveries

__all__ = ["Bell"]

#: Seconds for which the server waits for a marker. One that got lost with its worker costs no more.
TICK = 1
#: Seconds for which an answer may be late.
ANSWER = 2.0


class Bell:
    """Waits for the markers of queues, and reads what rings.

    A marker that was read and is not followed by a look belongs to another worker: see
    :meth:`pass_on`. For one thread at a time, but for :meth:`interrupt`.
    """

    def __init__(self, store: Deliveries) -> None:
        self._store = store
        self._kept = store.connections.kept()
        #: The queues whose markers the server was asked for, until it answers.
        self._asked: frozenset[str] = frozenset()
        self._overdue = 0.0
        #: The queue whose marker was read last.
        self._rang = ""
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._inside, selectors.EVENT_READ)
        self._watched: t.Any = None

    @property
    def asked(self) -> bool:
        """Whether the server has been asked, and may yet answer."""
        return bool(self._asked)

    def wait(self, queues: t.Sequence[str], until: float) -> bool:
        """Wait until it is time to look: for a marker, a tick, or the moment ``until``.

        :param until: By the monotonic clock.
        :return: False if it was interrupted.
        :raises StoreUnavailable: The server is away; what was asked is void.
        """
        if self._asked and self._asked != frozenset(queues):
            self.pass_on()
        try:
            if not self._asked:
                self._ask(queues)
            return self._hear(until)
        except BaseException:
            self.close()
            raise

    def _ask(self, queues: t.Sequence[str]) -> None:
        self._store.connections.check(self._kept)
        link = Link(self._kept, Deadline.after(ANSWER))
        link.open()
        opened = self._kept.connection._sock
        if opened is not self._watched:
            self._watch_no_more()
            self._selector.register(opened, selectors.EVENT_READ)
            self._watched = opened
        link.send("BRPOP", *(self._store.keys.wake(queue) for queue in queues), TICK)
        self._asked = frozenset(queues)
        self._overdue = time.monotonic() + TICK + ANSWER

    def _hear(self, until: float) -> bool:
        ready = self._selector.select(max(0.0, min(until, self._overdue) - time.monotonic()))
        if any(key.fileobj is self._inside for key, _ in ready):
            self._hush()
            return False
        if ready:
            self._read(ANSWER)
        elif time.monotonic() >= self._overdue:
            raise StoreUnavailable("The server of OFFLOAD_URL did not answer in time.")
        return True

    def _read(self, timeout: float) -> None:
        try:
            reply = Link(self._kept, Deadline.after(timeout)).read()
        except redis.ResponseError as error:
            raise StoreUnavailable(f"The server of OFFLOAD_URL refused to wait: {error}") from error
        self._asked = frozenset()
        self._rang = reply[0].removeprefix(self._store.keys.wake("")) if reply else ""

    def interrupt(self) -> None:
        """End the wait of the thread that waits, or of the next one."""
        with suppress(OSError):  # full: there are enough of them
            self._outside.send(b"!")

    def pass_on(self) -> None:
        """Take back the question, and give the marker that came to another worker.

        :raises StoreUnavailable: The marker could not be set again.
        """
        if self._asked:
            self._rang = ""
            # Only the server knows whether the marker is on its way here. It answers all that it
            # did before it learns that nothing more will be asked.
            with suppress(StoreUnavailable, OSError):
                socket.socket.shutdown(self._kept.connection._sock, socket.SHUT_WR)
                self._read(ANSWER)
            self.close()
        rang, self._rang = self._rang, ""
        if rang:
            self._store.wake(rang)

    def looked(self) -> None:
        """Note that the marker has been followed by a look."""
        self._rang = ""

    def _hush(self) -> None:
        with suppress(BlockingIOError):
            self._inside.recv(4096)

    def pause(self, seconds: float) -> None:
        """Wait for that long, unless interrupted."""
        if self._selector.select(seconds):
            self._hush()

    def close(self) -> None:
        """Hang up; it connects again when it is used again."""
        self._watch_no_more()
        self._asked = frozenset()
        self._kept.connection.disconnect()

    def _watch_no_more(self) -> None:
        if self._watched is not None:
            self._selector.unregister(self._watched)
            self._watched = None
