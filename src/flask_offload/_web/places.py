"""How many live streams there may be."""

from __future__ import annotations

import threading
import typing as t
from collections import Counter

from .pool import threads

__all__ = ["Places"]


class Places:
    """The streams that a process may hold, and one owner of them.

    :param limit: Most in all.
    :param per_owner: Most of one owner.
    """

    def __init__(self, limit: int, per_owner: int) -> None:
        self._limit = limit
        self._per_owner = per_owner
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()

    def take(self, owner: str) -> t.Callable[[], None] | None:
        """Take a place; what is returned gives it back. ``None`` if there is none."""
        pool = threads()
        # Streams never take the last threads, or the app would answer nobody else.
        limit = self._limit if pool is None else min(self._limit, pool // 2)
        with self._lock:
            if self._held.total() >= limit or self._held[owner] >= self._per_owner:
                return None
            self._held[owner] += 1
        return lambda: self._give_back(owner)

    def _give_back(self, owner: str) -> None:
        with self._lock:
            self._held[owner] -= 1
            if not self._held[owner]:
                del self._held[owner]
