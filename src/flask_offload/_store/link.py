"""One connection to the server: a command and its reply, within a deadline."""

from __future__ import annotations

import os
import select
import socket
import time
import typing as t

import hiredis
import redis

from ..exceptions import ServerError
from .address import reason
from .deadline import Deadline

__all__ = ["Link", "StoreUnavailable"]

#: Seconds by which an answer may come after its deadline, twice.
CLOSE = 0.01
#: Seconds for which a thread looks for an answer before it sleeps. Of a server that is near, it is
#: there sooner than a processor that has gone to sleep is awake again.
LOOK = 0.0001
#: Most calls after one whose answer took longer that do not look for theirs.
BLIND = 256

#: Leaves the processor to whom it waits for, should that be on the same one.
_let_others: t.Callable[[], None] = getattr(os, "sched_yield", lambda: None)

LOST = (redis.ConnectionError, redis.TimeoutError, OSError)


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


class Link:
    """A connection of redis-py, lent for one step at a time, and the deadline of that step."""

    __slots__ = ("_blind", "_deadline", "_far", "_limit", "_poll", "_socket", "connection", "looks")

    def __init__(self, connection: t.Any) -> None:
        self.connection = connection
        self._deadline = Deadline(0.0)
        self._socket: t.Any = None
        #: Seconds after which the socket gives up.
        self._limit = 0.0
        self._poll: t.Callable[[int], t.Any] = lambda _: True
        #: Whether to look for answers, as no other thread waits for any: each look gives away the
        #: interpreter, and several threads would halve each other's pace.
        self.looks = False
        #: How many calls are not to look for their answers, and how many were not the last time.
        self._blind = self._far = 0

    def open(self, deadline: Deadline) -> None:
        """Connect, unless connected to a peer that is still there."""
        self._deadline = deadline
        connection = self.connection
        try:
            left = deadline.left()
            if not left:
                raise redis.TimeoutError("no time was left to connect")
            opened = connection._sock
            if opened is not None:
                try:
                    if opened is not self._socket:
                        self._watch(opened)
                    # A free connection has nothing to read; one that has was closed by the server,
                    # or is out of step.
                    if not self._poll(0) or not connection.can_read():
                        return
                except (redis.ConnectionError, OSError):
                    pass
                connection.disconnect()
            connection.socket_connect_timeout = left
            connection.socket_timeout = left
            connection.connect()
        except LOST as error:
            raise _in_our_words(error, sent=False) from error

    @property
    def is_quiet(self) -> bool:
        """Whether the peer is there, and has said nothing since."""
        opened = self.connection._sock
        if opened is not self._socket:
            self._watch(opened)
        return opened is not None and not (self._poll(0) and self.connection.can_read())

    def _watch(self, opened: t.Any) -> None:
        self._socket, self._limit = opened, 0.0
        # TLS has a buffer of its own, and patched sockets have a loop: redis-py knows how to ask.
        if type(opened) is socket.socket and hasattr(select, "poll"):
            poll = select.poll()
            poll.register(opened, select.POLLIN)
            self._poll = poll.poll
        else:
            self._poll = lambda _: True

    def call(self, *command: t.Any) -> t.Any:
        """Send one command and read its reply."""
        self.send(command)
        if self.looks:
            self._look()
        return self.read()

    def _look(self) -> None:
        """Look for the answer for a moment, unless answers take longer than that."""
        if self._blind:
            self._blind -= 1
            return
        until = time.perf_counter() + LOOK
        while not self._poll(0):
            if time.perf_counter() > until:
                # The server is far away or busy, or this process is, in its other threads.
                self._blind = self._far = min(BLIND, 2 * self._far or 1)
                return
            _let_others()
        self._far = 0

    def send(self, *commands: tuple[t.Any, ...]) -> None:
        """Send commands, whose replies are yet to be read."""
        try:
            try:
                # In one write: they are to be there together.
                packed = b"".join(map(_packed, commands))
            except UnicodeEncodeError:
                packed = b"".join(_pack(self.connection, commands))
            self.connection.send_packed_command((packed,), False)
        except LOST as error:
            raise _in_our_words(error, sent=False) from error

    def read(self) -> t.Any:
        """Read one reply."""
        try:
            return self._read()
        except LOST as error:
            raise _in_our_words(error, sent=True) from error

    def within(self, deadline: Deadline) -> None:
        """Give what follows until then."""
        self._deadline = deadline

    def _read(self) -> t.Any:
        left = self._deadline.left()
        if not left:
            raise redis.TimeoutError("no answer in time")
        # To tell a socket its timeout is a call of the system. One that is nearly right will do.
        connection = self.connection
        opened = connection._sock
        if opened is not self._socket:
            self._watch(opened)
        if not left <= self._limit <= left + 2 * CLOSE and opened is not None:
            opened.settimeout(left + CLOSE)
            self._limit = left + CLOSE
        return connection.read_response()

    def pipeline(self, commands: t.Sequence[tuple[t.Any, ...]]) -> list[t.Any]:
        """Send several commands at once. An error of one command is its item of the reply."""
        connection = self.connection
        try:
            connection.send_packed_command(_pack(connection, commands), check_health=False)
        except LOST as error:
            raise _in_our_words(error, sent=False) from error
        replies: list[t.Any] = []
        try:
            for _ in commands:
                try:
                    replies.append(self._read())
                except redis.ResponseError as error:
                    replies.append(error)
        except LOST as error:
            raise _in_our_words(error, sent=True) from error
        return replies


_packed = hiredis.pack_command


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


def _in_our_words(error: Exception, *, sent: bool) -> StoreUnavailable:
    """What redis-py raises when a connection is lost."""
    if isinstance(error, redis.AuthenticationError):
        return StoreUnavailable(
            f"The server refused the user or password of OFFLOAD_URL ({error}).", sent=False
        )
    text = reason(error) or f"The server of OFFLOAD_URL is away ({error})."
    return StoreUnavailable(str(text), sent=sent)
