"""All queues at a glance."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

if t.TYPE_CHECKING:
    from .store import Store

__all__ = ["Overview", "QueueInfo", "overview"]

#: Priorities are a factor of the place in line, see ``line_up`` in ``lua/_shared.lua``.
PRIORITIES, FACTOR = range(10), 8796093022208


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """One queue.

    :param waiting: How many jobs wait in it.
    :param oldest: Seconds for which the one that waits longest has been in line.
    """

    name: str
    waiting: int
    paused: bool = False
    oldest: float | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """All queues.

    :param scheduled: How many jobs are to be later, in all queues.
    :param held: How many are in the hands of workers.
    """

    queues: list[QueueInfo]
    scheduled: int = 0
    held: int = 0


def overview(store: Store, names: t.Iterable[str] = ()) -> Overview:
    """The queues that have been used, and ``names``."""
    prefix = store.keys.prefix
    used, paused, scheduled, held, clock = store._pipeline(
        [
            ("SMEMBERS", f"{prefix}queues"),
            ("SMEMBERS", store.keys.paused),
            ("ZCARD", f"{prefix}scheduled"),
            ("ZCARD", f"{prefix}leases"),
            ("TIME",),
        ]
    )
    now = int(clock[0]) + int(clock[1]) / 1e6
    queues = [
        QueueInfo(name, store.size(name), name in paused, _oldest(store, name, now))
        for name in sorted({*used, *paused, *names})
    ]
    return Overview(queues, int(scheduled), int(held))


def _oldest(store: Store, name: str, now: float) -> float | None:
    # The first of each priority is the oldest of it.
    first = store._pipeline(
        [
            ("ZRANGE", store.keys.queue(name), low, f"({low + FACTOR}", "BYSCORE", "LIMIT", 0, 1)
            for low in (priority * FACTOR for priority in PRIORITIES)
        ]
    )
    jobs = [job_id for found in first for job_id in found]
    if not jobs:
        return None
    # The last that happened to a job in line is that it lined up. A new one has no such event.
    found = store._pipeline(
        [("HMGET", store.keys.job(job_id), "event_id", "created_at") for job_id in jobs]
    )
    since = [
        int(event.partition("-")[0]) / 1000 if event else float(created_at)
        for event, created_at in found
        if event or created_at
    ]
    return max(0.0, now - min(since)) if since else None
