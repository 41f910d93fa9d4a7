"""Connections whose every step, waiting for a free one included, keeps to one deadline.

The connection itself is redis-py's, for its TLS, sockets, authentication and parser. Its client
is not used: it gives each step a timeout of its own, and retries by itself, so that a hung server
would cost a request a multiple of the publish budget.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import typing as t
from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..exceptions import ServerError
from .address import connection_options, reason, redis_url
from .deadline import Deadline
from .sentinel import Primary

__all__ = ["Connections", "Deadline", "StoreUnavailable"]


class StoreUnavailable(ServerError, redis.ConnectionError):
    """The server of ``OFFLOAD_URL`` could not be reached, did not answer in time, or refused.

    A lost connection to kombu and Celery, which know what to do about one.

    :param sent: Whether a command had been sent, so that it may have taken effect.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


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
        self._free: deque[_Kept] = deque()
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

    def _get(self) -> _Kept:
        try:
            kept = self._free.pop()
        except IndexError:
            kept = _Kept(self._settings.connection_class(**self._settings.connection_kwargs))
        if self._primary is not None:
            self._primary.check(kept.connection)
        return kept

    def close(self) -> None:
        """Close the connections that are free."""
        with suppress(IndexError):  # another thread took the last one
            while True:
                self._free.pop().connection.disconnect()


class _Loan:
    """A connection that somebody has borrowed; a plain object, as one is made for each call."""

    __slots__ = ("_deadline", "_free", "_kept", "_pool", "_slots")

    def __init__(self, pool: Connections, deadline: Deadline) -> None:
        self._pool = pool
        self._deadline = deadline
        # A fork in between gives the child a pool of its own, and must not give it this.
        self._free, self._slots = pool._free, pool._slots

    def __enter__(self) -> Link:
        try:
            self._slots.get(timeout=self._deadline.left())
        except Empty:
            raise StoreUnavailable(
                f"All {self._pool._limit} connections to the server stayed busy.", sent=False
            ) from None
        try:
            self._kept = self._pool._get()
        except BaseException:
            self._slots.put(None)
            raise
        link = Link(self._kept, self._deadline)
        try:
            link.open()
        except BaseException as error:
            self._end(error)
            raise
        return link

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        try:
            if error is None:
                self._free.append(self._kept)
                return
            # Whatever it still holds belongs to a command that nobody waits for.
            self._kept.connection.disconnect()
            if isinstance(error, StoreUnavailable) and self._pool._primary is not None:
                # The others lead to the same server, which may be the primary no longer: each
                # would wait for it as long as this one did.
                self._pool.close()
        finally:
            self._slots.put(None)


class _Kept:
    """A connection of redis-py, and a quick way to see that nothing came in on it."""

    __slots__ = ("_poll", "_socket", "connection")

    def __init__(self, connection: t.Any) -> None:
        self.connection = connection
        self._socket: t.Any = None
        self._poll: t.Callable[[int], t.Any] = lambda _: True

    def is_quiet(self) -> bool:
        """Whether the peer is there, and has said nothing since.

        A free connection has nothing to read; one that has was closed by the server, or is out of
        step.
        """
        opened = getattr(self.connection, "_sock", None)
        if opened is not self._socket:
            self._watch(opened)
        return not self._poll(0) or not self.connection.can_read()

    def _watch(self, opened: t.Any) -> None:
        self._socket = opened
        # TLS has a buffer of its own, and patched sockets have a loop: redis-py knows how to ask.
        if type(opened) is socket.socket and hasattr(select, "poll"):
            poll = select.poll()
            poll.register(opened, select.POLLIN)
            self._poll = poll.poll
        else:
            self._poll = lambda _: True


class Link:
    """One borrowed connection and its deadline."""

    __slots__ = ("_connection", "_deadline", "_kept")

    def __init__(self, kept: _Kept, deadline: Deadline) -> None:
        self._kept = kept
        self._connection = kept.connection
        self._deadline = deadline

    def open(self) -> None:
        """Connect, unless connected to a peer that is still there."""
        connection = self._connection
        with _NOT_SENT:
            left = self._deadline.left()
            if not left:
                raise redis.TimeoutError("no time was left to connect")
            if connection.is_connected:
                try:
                    if self._kept.is_quiet():
                        return
                except (redis.ConnectionError, OSError):
                    pass
                connection.disconnect()
            connection.socket_connect_timeout = left
            connection.socket_timeout = left
            connection.connect()

    def call(self, *command: t.Any) -> t.Any:
        """Send one command and read its reply."""
        connection = self._connection
        with _NOT_SENT:
            try:
                packed = [hiredis.pack_command(command)]
            except UnicodeEncodeError:
                packed = _pack(connection, [command])
            connection.send_packed_command(packed, check_health=False)
        with _SENT:
            return self._read()

    def _read(self) -> t.Any:
        left = self._deadline.left()
        if not left:
            raise redis.TimeoutError("no answer in time")
        return self._connection.read_response(timeout=left)

    def pipeline(self, commands: t.Sequence[tuple[t.Any, ...]]) -> list[t.Any]:
        """Send several commands at once. An error of one command is its item of the reply."""
        connection = self._connection
        with _NOT_SENT:
            connection.send_packed_command(_pack(connection, commands), check_health=False)
        replies: list[t.Any] = []
        with _SENT:
            for _ in commands:
                try:
                    replies.append(self._read())
                except redis.ResponseError as error:
                    replies.append(error)
        return replies


def _pack(connection: t.Any, commands: t.Sequence[tuple[t.Any, ...]]) -> t.Any:
    try:
        return connection.pack_commands(commands)
    except UnicodeEncodeError:
        # Names that are no text, as they came in.
        return connection.pack_commands(
            [
                [a.encode("utf-8", "surrogateescape") if isinstance(a, str) else a for a in command]
                for command in commands
            ]
        )


class _Translated:
    """What redis-py raises, in our words."""

    __slots__ = ("_sent",)

    def __init__(self, *, sent: bool) -> None:
        self._sent = sent

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, redis.AuthenticationError):
            raise StoreUnavailable(
                f"The server refused the user or password of OFFLOAD_URL ({error}).", sent=False
            ) from error
        if isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError):
            text = reason(error) or f"The server of OFFLOAD_URL is away ({error})."
            raise StoreUnavailable(str(text), sent=self._sent) from error


_NOT_SENT, _SENT = _Translated(sent=False), _Translated(sent=True)
