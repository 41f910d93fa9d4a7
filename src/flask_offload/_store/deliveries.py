"""The line of waiting jobs, and the leases of those that were handed out."""

from __future__ import annotations

import json
import time
import typing as t

from . import scripts
from .base import Base
from .data import Delivery, Fetched

__all__ = ["Deliveries", "fetched"]


def fetched(answer: t.Sequence[t.Any], at: float) -> Fetched:
    """What the server says to who fetches.

    :param at: See :class:`Fetched`.
    """
    due, more, *items = answer
    rows = zip(*[iter(items)] * 9, strict=True)
    found = [
        Delivery(job_id, int(fence), queue, raw, bool(at_once), tuple(origin))
        for job_id, fence, queue, raw, at_once, *origin in rows
    ]
    return Fetched(found, bool(more), float(due) if due else None, at)


class Deliveries(Base):
    """From in line to acknowledged."""

    def fetch(
        self,
        worker: str,
        queues: t.Sequence[str],
        room: int,
        *,
        slots: int | None = None,
        share: float = 0,
        costs: str = "{}",
        waits: bool = False,
    ) -> Fetched:
        """Hand out jobs, each with a lease.

        What is due, and what its worker no longer holds, lines up first.

        :param queues: In the order in which they are looked at.
        :param room: Most jobs of tasks that are not in ``costs``.
        :param slots: Most jobs that can start at once; ``room`` unless given.
        :param share: Seconds of work that may wait behind each of these.
        :param costs: The seconds that a job of each task takes which may wait so, as JSON.
        :param waits: The worker will be there when the next delayed job is due. Of several, one is
            told when that is, and the others a little later.
        """
        asked = self._asked(worker, queues, room, slots, share, costs, waits)
        at = time.monotonic()
        return fetched(self._script("fetch", "", *asked), at)

    def fetch_command(
        self,
        worker: str,
        queues: t.Sequence[str],
        room: int,
        *,
        slots: int | None = None,
        share: float = 0,
        costs: str = "{}",
        waits: bool = False,
    ) -> tuple[t.Any, ...]:
        """What :meth:`fetch` sends to a server that knows the script; :func:`fetched` reads the
        answer."""
        asked = self._asked(worker, queues, room, slots, share, costs, waits)
        args = (*self._common(""), *asked)
        return scripts.command("fetch", [self.keys.job("")], args)

    def _asked(
        self,
        worker: str,
        queues: t.Sequence[str],
        room: int,
        slots: int | None,
        share: float,
        costs: str,
        waits: bool,
    ) -> tuple[t.Any, ...]:
        slots = room if slots is None else slots
        asked = json.dumps(list(queues)), slots, share, costs, int(waits)
        return (worker, room, self._lease, *asked)

    def extend(self, held: t.Mapping[str, int]) -> tuple[list[str], list[str]]:
        """Say that a worker is alive.

        :param held: The jobs that it holds, and their fences.
        :return: The ids of those whose lease it has lost, and of those that are over.
        """
        if not held:
            return [], []
        pairs = [item for pair in held.items() for item in pair]
        lost, over = self._script("extend", "", self._lease, *pairs)
        return lost, over

    def release(
        self,
        job_id: str,
        fence: int,
        *,
        delay: float = 0,
        forgive: bool = False,
        why: str = "",
        limit: float = 0,
        in_pool: bool = False,
    ) -> bool:
        """Give a job back, in its old place.

        :param delay: Seconds until it is handed out again.
        :param forgive: Its start does not count against the delivery limit.
        :param why: The reason, where it waits for something, and ``limit`` the seconds for which
            it may.
        :param in_pool: It is not to be handed out again to wait behind others.
        :return: False if it was not the caller's to give back, or has waited for too long.
        """
        args = (fence, delay, int(forgive), why, limit, int(in_pool))
        return bool(self._script("release", job_id, *args))

    def ack(self, job_id: str, fence: int) -> None:
        """End the lease of a job that is dealt with."""
        self._script("ack", job_id, fence)

    def reuse(self, job_id: str, publish: str, sender: str = "") -> bool:
        """Let the next enqueue take the place of a job that is over.

        :param publish: A text that is in the message to be enqueued, and in no other.
        :param sender: The job that sends it, if one does.
        :return: False if the job is not over, or is of that very message.
        """
        return bool(self._script("reuse", job_id, publish, sender))

    def bury(self, job_id: str, fence: int, error: str, error_type: str, result: str) -> bool:
        """Make a job dead that a worker cannot read, and keep all of it.

        :param result: Celery's result of a failed task, encoded.
        """
        keys = [self.keys.result(job_id)]
        return bool(self._script("bury", job_id, fence, error, error_type, result, keys=keys))

    # -- queues

    def scheduled(self, queues: t.Sequence[str], limit: int) -> list[tuple[float, Delivery]]:
        """What of some queues is due later, soonest first, and when (seconds since the epoch)."""
        found = self._script("upcoming", "", limit, json.dumps(list(queues)))
        return [(float(due), Delivery(job_id, 0, queue, raw)) for due, job_id, queue, raw in found]

    def size(self, queue: str) -> int:
        """How many jobs wait in a queue."""
        return int(self.call("ZCARD", self.keys.queue(queue)))

    def purge(self, queue: str) -> int:
        """Cancel all jobs that wait in a queue; how many there were."""
        total = 0
        while taken := int(self._script("purge", "", queue, 1000)):
            total += taken
        return total

    def pause(self, queue: str) -> None:
        """Hand out nothing of a queue until :meth:`resume`; what runs goes on."""
        self.call("SADD", self.keys.paused, queue)

    def resume(self, queue: str) -> None:
        """Hand out the jobs of a queue again."""
        self.call("SREM", self.keys.paused, queue)
        self.wake(queue)

    def wake(self, queue: str) -> None:
        """Have one worker look at a queue; it wakes the next while there is more."""
        self._script("wake", "", queue)

    def position(self, job_id: str) -> int | None:
        """Place in line, from 1; ``None`` where the job does not wait in a queue of ours."""
        queue = self.call("HGET", self.keys.job(job_id), "queue")
        rank = self.call("ZRANK", self.keys.queue(queue), job_id) if queue else None
        return None if rank is None else int(rank) + 1
