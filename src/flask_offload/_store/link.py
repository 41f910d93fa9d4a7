"""One connection to the server: a command and its reply, within a deadline."""

from __future__ import annotations

import select
import socket
import typing as t

import hiredis
import redis

from ..exceptions import ServerError
from .address import reason
from .deadline import Deadline

__all__ = ["Kept", "Link", "StoreUnavailable"]


class StoreUnavailable(ServerError, redis.ConnectionError):
    """The server of ``OFFLOAD_URL`` could not be reached, did not answer in time, or refused.

    A lost connection to kombu and Celery, which know what to do about one.

    :param sent: Whether a command had been sent, so that it may have taken effect.
    :param for_good: Whether the server refused what the command is about, as a record that was
        overwritten: it will do so again.
    """

    # What has a default can be sent from the processes of a pool.
    def __init__(self, message: str, *, sent: bool = False, for_good: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.for_good = for_good


class Kept:
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

    def __init__(self, kept: Kept, deadline: Deadline) -> None:
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
        self.send(command)
        return self.read()

    def send(self, *commands: tuple[t.Any, ...]) -> None:
        """Send commands, whose replies are yet to be read."""
        connection = self._connection
        with _NOT_SENT:
            try:
                packed = [b"".join(hiredis.pack_command(command) for command in commands)]
            except UnicodeEncodeError:
                packed = _pack(connection, commands)
            connection.send_packed_command(packed, check_health=False)

    def read(self) -> t.Any:
        """Read one reply."""
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
