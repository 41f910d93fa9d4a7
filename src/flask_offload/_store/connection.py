"""Connections whose every step, waiting for a free one included, keeps to one deadline.

The connection itself is redis-py's, for its TLS, sockets, authentication and parser. Its client
is not used: it gives each step a timeout of its own, and retries by itself, so that a hung server
would cost a request a multiple of the publish budget.
"""

from __future__ import annotations

import os
import threading
import typing as t
from collections import deque
from contextlib import contextmanager, suppress

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
        self._free: deque[t.Any] = deque()
        self._slots = threading.BoundedSemaphore(self._limit)

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

    @contextmanager
    def take(self, deadline: Deadline) -> t.Iterator[Link]:
        """Borrow a connection.

        :raises StoreUnavailable: None became free, or it could not be opened, in time.
        """
        if self._pid != os.getpid():
            # A forked child must not talk on its parent's sockets.
            self._reset()
        free, slots = self._free, self._slots
        if not slots.acquire(timeout=deadline.left()):
            raise StoreUnavailable(
                f"All {self._limit} connections to the server stayed busy.", sent=False
            )
        try:
            try:
                connection = free.pop()
            except IndexError:
                connection = self._settings.connection_class(**self._settings.connection_kwargs)
            if self._primary is not None:
                self._primary.check(connection)
            link = Link(connection, deadline)
            try:
                link.open()
                yield link
            except BaseException as error:
                # Whatever it still holds belongs to a command that nobody waits for.
                connection.disconnect()
                if isinstance(error, StoreUnavailable) and self._primary is not None:
                    # The others lead to the same server, which may be the primary no longer:
                    # each would wait for it as long as this one did.
                    self.close()
                raise
            else:
                free.append(connection)
        finally:
            slots.release()

    def close(self) -> None:
        """Close the connections that are free."""
        with suppress(IndexError):  # another thread took the last one
            while True:
                self._free.pop().disconnect()


class Link:
    """One borrowed connection and its deadline."""

    def __init__(self, connection: t.Any, deadline: Deadline) -> None:
        self._connection = connection
        self._deadline = deadline

    def open(self) -> None:
        """Connect, unless connected to a peer that is still there."""
        connection = self._connection
        with _translated(sent=False):
            left = self._deadline.left()
            if not left:
                raise redis.TimeoutError("no time was left to connect")
            if connection.is_connected:
                try:
                    # A free connection has nothing to read; one that has was closed by the
                    # server, or is out of step.
                    if connection.can_read():
                        connection.disconnect()
                except (redis.ConnectionError, OSError):
                    connection.disconnect()
            if not connection.is_connected:
                connection.socket_connect_timeout = left
                connection.socket_timeout = left
                connection.connect()

    def call(self, *command: t.Any) -> t.Any:
        """Send one command and read its reply."""
        (reply,) = self.pipeline([command])
        if isinstance(reply, redis.ResponseError):
            raise reply
        return reply

    def pipeline(self, commands: t.Sequence[tuple[t.Any, ...]]) -> list[t.Any]:
        """Send several commands at once. An error of one command is its item of the reply."""
        connection = self._connection
        with _translated(sent=False):
            connection.send_packed_command(_pack(connection, commands), check_health=False)
        replies: list[t.Any] = []
        with _translated(sent=True):
            for _ in commands:
                left = self._deadline.left()
                if not left:
                    raise redis.TimeoutError("no answer in time")
                try:
                    replies.append(connection.read_response(timeout=left))
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


@contextmanager
def _translated(*, sent: bool) -> t.Iterator[None]:
    try:
        yield
    except redis.AuthenticationError as error:
        raise StoreUnavailable(
            f"The server refused the user or password of OFFLOAD_URL ({error}).", sent=False
        ) from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        text = reason(error) or f"The server of OFFLOAD_URL is away ({error})."
        raise StoreUnavailable(str(text), sent=sent) from error
