"""Waiting in tests: for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T],
    timeout: float = 10.0,
    interval: float = 0.02,
    message: str | Callable[[], str] = "",
) -> T:
    """Call a condition until it is true, and return what it returned.

    :param timeout: Seconds after which the test fails.
    :param interval: Seconds between two calls.
    :param message: What was waited for; a function is called at the end, to tell what is.
    """
    deadline = time.monotonic() + timeout
    while True:
        # The clock first: a condition that is slow, or a machine that is, gets its last chance.
        late = time.monotonic() > deadline
        if result := condition():
            return result
        if late:
            reason = message() if callable(message) else message
            raise AssertionError(f"Not within {timeout:g} s: {reason or condition}")
        time.sleep(interval)
