"""A call whose answer is read later, so that its caller has something else to do meanwhile."""

from __future__ import annotations

import time
import typing as t

import redis

from .deadline import Deadline
from .link import StoreUnavailable

if t.TYPE_CHECKING:
    from .base import Base

__all__ = ["Ahead"]


class Ahead:
    """One call at a time, on a connection of its own. For one thread at a time.

    It does not try again: whoever gets :exc:`StoreUnavailable` makes the same call the usual way.
    """

    def __init__(self, store: Base) -> None:
        self._store = store
        self._link = store.connections.own()
        #: Whether there is a call whose answer is not read yet.
        self.asked = False
        #: When it was made, by the monotonic clock.
        self.asked_at = 0.0

    def ask(self, command: tuple[t.Any, ...]) -> None:
        """Make the call.

        :raises StoreUnavailable: It could not be sent.
        """
        link = self._link
        try:
            self._store.connections.check(link)
            link.open(Deadline.after(self._store.timeout))
            link.send(command)
        except BaseException:
            link.connection.disconnect()
            raise
        self.asked, self.asked_at = True, time.monotonic()

    @property
    def answered(self) -> bool:
        """Whether :meth:`read` need not wait."""
        try:
            return not self._link.is_quiet
        except (redis.ConnectionError, OSError):
            return True

    def read(self) -> t.Any:
        """The answer; waits for it.

        :raises StoreUnavailable: It did not come, or is an error.
        """
        link = self._link
        self.asked = False
        try:
            link.within(Deadline.after(self._store.timeout))
            return link.read()
        except redis.ResponseError as error:
            raise StoreUnavailable(f"The server of OFFLOAD_URL refused: {error}") from error
        except BaseException:
            link.connection.disconnect()
            raise
