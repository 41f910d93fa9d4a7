"""How a thread wakes the event loop of its worker."""

from __future__ import annotations

import socket
import typing as t
from contextlib import suppress

__all__ = ["Waker"]


class Waker:
    """A pair of sockets: the loop waits for one, and any thread writes to the other."""

    def __init__(self) -> None:
        self._ends: tuple[socket.socket, socket.socket] | None = None

    def watch(self, hub: t.Any) -> None:
        """Be woken in an event loop of kombu's; again after each reset of it."""
        if self._ends is None:
            self._ends = socket.socketpair()
            for end in self._ends:
                end.setblocking(False)
        hub.add_reader(self._ends[0].fileno(), self._drain)

    def wake(self) -> None:
        """Wake the loop. For any thread."""
        if self._ends is not None:
            with suppress(BlockingIOError):  # it is full of what will wake the loop
                self._ends[1].send(b"x")

    def _drain(self) -> None:
        if self._ends is not None:
            with suppress(BlockingIOError):
                self._ends[0].recv(4096)
