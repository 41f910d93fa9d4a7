"""Where a job stands in line, and how long that will take."""

from __future__ import annotations

import heapq
import math
import threading
import time
import typing as t
from dataclasses import dataclass

from .data import WorkerInfo

if t.TYPE_CHECKING:
    from .._jobs import JobRecord
    from .store import Store

__all__ = ["Line", "Queue", "Standing", "start_in"]

#: Jobs of which each is looked at by itself; behind them, all are taken for the average of these.
FRONT = 50
#: Jobs that were done last, from which the pace of tasks is known.
SAMPLE = 200
#: Of fewer runs nobody can say how long the next one takes.
ENOUGH = 3
#: Seconds for which what was seen of a task is recent.
RECENT = 3600.0


@dataclass(frozen=True, slots=True)
class Standing:
    """
    :param place: From 1; ``None`` where the job is in no line of this server.
    :param parked: Why it was put aside, as the worker said.
    """

    place: int | None
    parked: str = ""


@dataclass(frozen=True, slots=True)
class Queue:
    """What is ahead of everybody in a queue.

    :param slots: How many jobs the workers that listen to it can run at once.
    :param running: Task, and seconds since its start, of those that workers hold.
    :param front: Tasks of the first in line.
    """

    paused: bool = False
    slots: int = 0
    running: tuple[tuple[str, float], ...] = ()
    front: tuple[str, ...] = ()


class Line:
    """Answers for all pages of a process: what is the same for all is read once a second, and
    the place of each job in O(log n)."""

    def __init__(self, store: Store, *, fresh: float = 1.0, pace_fresh: float = 5.0) -> None:
        self._store = store
        self._fresh = fresh
        self._pace_fresh = pace_fresh
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, t.Any]] = {}
        self._costs: dict[str, tuple[float, float | None]] = {}

    def standings(self, records: t.Sequence[JobRecord]) -> list[Standing]:
        """The place of each of these jobs, all in one round trip."""
        if not records:
            return []
        keys = self._store.keys
        commands: list[tuple[str, ...]] = []
        for record in records:
            commands.append(("ZRANK", keys.queue(record.queue), record.id))
            commands.append(("HGET", keys.job(record.id), "parked"))
        answers = iter(self._store._pipeline(commands))
        return [
            Standing(None if rank is None else int(rank) + 1, parked or "")
            for rank, parked in zip(answers, answers, strict=True)
        ]

    def workers(self) -> t.Sequence[WorkerInfo]:
        """The workers that are alive, as of a second ago."""
        return t.cast(
            "t.Sequence[WorkerInfo]",
            self._cached("workers", self._fresh, self._store.workers),
        )

    def queue(self, name: str) -> Queue:
        """What is ahead in a queue, as of a second ago."""
        workers = self.workers()
        return t.cast(
            "Queue", self._cached(f"queue {name}", self._fresh, lambda: self._queue(name, workers))
        )

    def seconds(self, queue: Queue, place: int) -> float | None:
        """How long the job at a place waits until it starts; ``None`` where nobody can tell."""
        known = {name for name, _ in queue.running} | {*queue.front[:place]} <= {*self._costs}
        self._cached("pace", self._pace_fresh if known else self._fresh, self._learn)
        return start_in(queue, place, {task: cost for task, (_, cost) in self._costs.items()})

    def _cached(self, name: str, fresh: float, read: t.Callable[[], t.Any]) -> t.Any:
        with self._lock:  # of many pages that find it stale, one asks
            at, value = self._known.get(name, (-1e9, None))
            if time.monotonic() - at >= fresh:
                value = read()
                self._known[name] = (time.monotonic(), value)
            return value

    def _queue(self, name: str, workers: t.Sequence[WorkerInfo]) -> Queue:
        store, keys = self._store, self._store.keys
        paused, held, first, clock = store._pipeline(
            [
                ("SMEMBERS", keys.paused),
                ("ZRANGE", f"{keys.prefix}leases", 0, FRONT - 1),
                ("ZRANGE", keys.queue(name), 0, FRONT - 1),
                ("TIME",),
            ]
        )
        found = store._pipeline(
            [("HMGET", keys.job(i), "task", "started_at", "queue") for i in [*held, *first]]
        )
        now = int(clock[0])
        running = [
            (task, now - float(at) if at else 0.0)
            for task, at, its in found[: len(held)]
            if task and (its == name or any({name, its} <= set(w.queues) for w in workers))
        ]
        slots = sum(max(1, w.concurrency) for w in workers if name in w.queues)
        front = tuple(task or "" for task, *_ in found[len(held) :])
        return Queue(name in paused, slots, tuple(running), front)

    def _learn(self) -> None:
        """How long tasks took of late, without a word of theirs on the way of a job: those that
        succeeded last are at the end of what expires after the time that such are kept."""
        store, now = self._store, time.time()
        newest = store.newest_succeeded(SAMPLE)
        runs: dict[str, list[float]] = {}
        for task, started_at, finished_at in newest:
            if now - finished_at < RECENT:
                runs.setdefault(task, []).append(max(0.0, finished_at - started_at))
        # What quick tasks have crowded out of the sample stays known for a while.
        self._costs = {
            task: (at, cost) for task, (at, cost) in self._costs.items() if now - at < RECENT
        } | {task: (now, _typical(took)) for task, took in runs.items() if len(took) >= ENOUGH}


def _typical(took: list[float]) -> float | None:
    """How long a run takes; ``None`` of runs too different for the next one to be known."""
    # Without the module of statistics, which every worker would have in memory for this.
    mean = sum(took) / len(took)
    deviation = math.sqrt(sum((seconds - mean) ** 2 for seconds in took) / len(took))
    return mean if deviation <= max(mean, 1.0) else None


def start_in(queue: Queue, place: int, costs: t.Mapping[str, float | None]) -> float | None:
    """Seconds until the job at ``place`` starts, as those ahead of it take their turns.

    :param costs: Seconds that a run of a task takes.
    """
    free = queue.slots - len(queue.running)
    if queue.slots <= 0 or queue.paused:
        return None
    if place <= free:
        return 0.0
    ahead = queue.front[: place - 1]
    running = [(costs.get(task), since) for task, since in queue.running]
    waiting = [costs.get(task) for task in ahead]
    if any(cost is None for cost, _ in running) or any(cost is None for cost in waiting):
        return None
    # When each slot is free. One that runs for longer than usual will be over some time.
    ends = [max(float(cost or 0) - since, float(cost or 0) / 10) for cost, since in running]
    slots = sorted(ends, reverse=True)[-queue.slots :] + [0.0] * max(0, free)
    beyond = sum(sorted(ends, reverse=True)[: -queue.slots]) if free < 0 else 0.0
    heapq.heapify(slots)
    for cost in waiting:
        heapq.heapreplace(slots, slots[0] + float(cost or 0))
    rest = place - 1 - len(ahead)
    average = sum(float(c or 0) for c in waiting) / len(waiting) if waiting else 0.0
    return slots[0] + (rest * average + beyond) / queue.slots
