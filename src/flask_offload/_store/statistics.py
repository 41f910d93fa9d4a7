"""What happened, in numbers."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

if t.TYPE_CHECKING:
    from .store import Store

__all__ = ["Minute", "Statistics", "statistics"]

#: What the scripts count; see ``count`` in ``lua/_shared.lua``.
COUNTED = (
    "enqueued",
    "retried",
    "succeeded",
    "failed",
    "cancelled",
    "dead",
    "leases_lost",
    "dead_dropped",
)
#: Minutes for which the server keeps the numbers of one.
KEPT = 24 * 60


@dataclass(frozen=True, slots=True)
class Minute:
    """What happened in one minute.

    :param at: When it began, in seconds since the epoch, by the server's clock.
    :param counts: How many jobs, by what happened to them; what did not is 0.
    """

    at: int
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What happened in all, and by the minute, the oldest first.

    Besides the final states there are ``enqueued``; ``retried`` for attempts after an error;
    ``leases_lost`` for jobs whose worker was gone; and ``dead_dropped`` for dead jobs that went
    before their time, because there were too many.
    """

    totals: dict[str, int]
    minutes: list[Minute]


def statistics(store: Store, minutes: int = 60) -> Statistics:
    """The numbers of the last minutes, the one that runs included; at most of a day."""
    prefix = store.keys.prefix
    now = int(store.call("TIME")[0]) // 60
    which = range(now - min(max(minutes, 1), KEPT) + 1, now + 1)
    totals, *found = store._pipeline(
        [("HMGET", f"{prefix}totals", *COUNTED)]
        + [("HMGET", f"{prefix}minute:{minute}", *COUNTED) for minute in which]
    )
    return Statistics(
        _counts(totals),
        [Minute(minute * 60, _counts(counts)) for minute, counts in zip(which, found, strict=True)],
    )


def _counts(values: t.Sequence[str | None]) -> dict[str, int]:
    return {name: int(value or 0) for name, value in zip(COUNTED, values, strict=True)}
