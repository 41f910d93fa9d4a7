"""Connections whose every step, waiting for a free one included, keeps to one deadline.

The connection itself is redis-py's, for its TLS, sockets, authentication and parser. Its client
is not used: it gives each step a timeout of its own, and retries by itself, so that a hung server
would cost a request a multiple of the publish budget.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t
from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .address import connection_options, redis_url
from .deadline import Deadline
from .link import Link, StoreUnavailable
from .sentinel import Primary

__all__ = ["CLIENT_NAME", "Connections", "Deadline", "Link", "StoreUnavailable"]

#: The name of the connections on which our workers wait.
CLIENT_NAME = "flask-offload"
#: Seconds after which who was one of several threads counts as alone.
QUIET = 0.01


class Connections:
    """A bounded pool of connections, safe across threads and forks.

    :param url: As redis-py takes it; ``valkey://``, ``valkeys://`` and ``sentinel://`` are
        understood too.
    :param limit: Most connections of this process.
    """

    def __init__(self, url: str, *, limit: int = 50) -> None:
        self.url = redis_url(url)
        # Only its settings are used.
        self._settings = redis.ConnectionPool(
            **{
                **connection_options(self.url),
                "retry": Retry(NoBackoff(), 0),
                "decode_responses": True,
                # Bytes of others that are no UTF-8 come through as they are, there and back.
                "encoding_errors": "surrogateescape",
            }
        )
        self._primary: Primary | None = self._settings.connection_kwargs.get("connection_pool")
        self._limit = limit
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._free: deque[Link] = deque()
        #: When several threads had one each, by the monotonic clock.
        self._shared_at = -QUIET
        self._slots: SimpleQueue[None] = SimpleQueue()
        for _ in range(self._limit):
            self._slots.put(None)

    @property
    def database(self) -> int:
        """The number of the database."""
        return int(self._settings.connection_kwargs.get("db") or 0)

    @property
    def address(self) -> tuple[t.Any, ...]:
        """Which database of which server this is."""
        known = self._settings.connection_kwargs
        if (primary := self._primary) is not None:
            return (*sorted(primary.sentinels), primary.name), self.database
        server = known.get("path") or (known.get("host", "localhost"), known.get("port", 6379))
        return server, self.database

    def take(self, deadline: Deadline) -> contextlib.AbstractContextManager[Link]:
        """Borrow a connection.

        :raises StoreUnavailable: None became free, or it could not be opened, in time.
        """
        if self._pid != os.getpid():
            # A forked child must not talk on its parent's sockets.
            self._reset()
        return _Loan(self, deadline)

    def own(self) -> Link:
        """A connection of one's own to wait on, which opens when it is used.

        It has a name, so that who looks at the server can tell our workers from others.
        """
        return self._new(client_name=CLIENT_NAME)

    def _new(self, **options: t.Any) -> Link:
        options = {**options, **self._settings.connection_kwargs}
        return Link(self._settings.connection_class(**options))

    def _is_quiet(self) -> bool:
        """Whether only who asks has a connection, and has been the only one for a while."""
        now = time.monotonic()
        if self._slots.qsize() < self._limit - 1:
            self._shared_at = now
        return now - self._shared_at > QUIET

    def check(self, link: Link) -> None:
        """Close a connection to a server that is the primary no longer."""
        if self._primary is not None:
            self._primary.check(link.connection)

    def close(self) -> None:
        """Close the connections that are free."""
        with suppress(IndexError):  # another thread took the last one
            while True:
                self._free.pop().connection.disconnect()


class _Loan:
    """A connection that somebody has borrowed; a plain object, as one is made for each call."""

    __slots__ = ("_deadline", "_free", "_link", "_pool", "_slots")

    def __init__(self, pool: Connections, deadline: Deadline) -> None:
        self._pool = pool
        self._deadline = deadline
        # A fork in between gives the child a pool of its own, and must not give it this.
        self._free, self._slots = pool._free, pool._slots

    def __enter__(self) -> Link:
        try:
            self._slots.get_nowait()
        except Empty:
            self._wait()
        try:
            try:
                link = self._free.pop()
            except IndexError:
                link = self._pool._new()
            self._link = link
            link.looks = self._pool._is_quiet()
            if self._pool._primary is not None:
                self._pool.check(link)
        except BaseException:
            self._slots.put(None)
            raise
        try:
            link.open(self._deadline)
        except BaseException as error:
            self._end(error)
            raise
        return link

    def _wait(self) -> None:
        try:
            self._slots.get(timeout=self._deadline.left())
        except Empty:
            raise StoreUnavailable(
                f"All {self._pool._limit} connections to the server stayed busy.", sent=False
            ) from None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        try:
            if error is None:
                self._free.append(self._link)
                return
            # Whatever it still holds belongs to a command that nobody waits for.
            self._link.connection.disconnect()
            if isinstance(error, StoreUnavailable) and self._pool._primary is not None:
                # The others lead to the same server, which may be the primary no longer: each
                # would wait for it as long as this one did.
                self._pool.close()
        finally:
            self._slots.put(None)
