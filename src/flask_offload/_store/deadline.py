"""A limit that several steps share."""

from __future__ import annotations

import time

__all__ = ["Deadline"]


class Deadline:
    """A point in time by the monotonic clock. A plain class, as one is made for each call."""

    __slots__ = ("at",)

    def __init__(self, at: float) -> None:
        self.at = at

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds left, never negative."""
        left = self.at - time.monotonic()
        return left if left > 0 else 0.0
