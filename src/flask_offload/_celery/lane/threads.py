"""The lane of a pool of threads: one waits for jobs, and runs one itself; see :mod:`.pickup`."""

from __future__ import annotations

import typing as t

from celery import signals
from celery.concurrency import solo, thread

from .. import logfile, ownlines
from .base import SHARE
from .inprocess import InProcessLane, SoloLane
from .pickup import Pickup

if t.TYPE_CHECKING:
    from ..engine import Engine

__all__ = ["ThreadsLane"]


class ThreadsLane(InProcessLane):
    """The plain jobs of a worker with a pool of threads."""

    def __init__(self, engine: Engine, consumer: t.Any) -> None:
        super().__init__(engine, consumer)
        self._executor = self._pool.executor
        self._asked = 0
        #: Whether a thread waits for jobs.
        self._waits = False
        self._pickup = self.pickup = Pickup(self)

    @property
    def _free(self) -> int:
        self._in_pool = self._pickup.in_pool
        return super()._free

    # -- what the thread asks that waits for jobs

    @property
    def lease(self) -> float:
        return self._engine.settings.lease

    @property
    def idle(self) -> int:
        """How many threads have nothing to do but wait, this one among them."""
        return max(0, self._free + 1)

    def may_wait(self) -> bool:
        """Whether there is no other use for this thread."""
        return not (self.stopped or self._waiting) and self._may_wait(self._free + 1)

    def another_waits(self) -> bool:
        """Whether there will be a thread that waits once this one and others work."""
        return self._may_wait(self._free + 1 - len(self._waiting))

    def _may_wait(self, threads: int) -> bool:
        return threads > 0 and not self.stopped and self._pickup.open

    # -- through

    def go(self) -> bool:
        with self._lock:
            # As many as there is work for, and one that waits for more.
            wanted = len(self._waiting) + (not self._waits and self._may_wait(1)) - self._asked
            for _ in range(min(self._free, wanted)):
                try:
                    self._executor.submit(self._loop)
                except RuntimeError:
                    break  # the pool is stopping; see end
                self._loops += 1
                self._asked += 1
        return True

    def _loop(self) -> None:
        with self._lock:
            self._asked -= 1
        while not self._executor_is_wanted():
            try:
                light, cost = self._waiting.popleft()
            except IndexError:
                if (self._more and self._refill()) or self._wait_or_leave():
                    continue
                return
            if not self._waits:
                self.go()
            self._run(light, cost)
            if self._more and self._behind < SHARE / 2 * self._quick:
                self._refill()
        with self._lock:
            self._loops -= 1
        self.go()

    def _wait_or_leave(self) -> bool:
        """Wait for jobs, unless another thread does; false if this one has left the lane."""
        with self._lock:
            # Who adds a job, or ends its wait, asks for threads under this lock: it sees that this
            # one goes, or this one sees the job, and that nobody waits.
            if self._waiting:
                return True
            if self._waits or not self._may_wait(self._free + 1):
                self._loops -= 1
                return False
            self._waits = True
        try:
            self._pickup.wait()
        finally:
            self._waits = False
        return True

    def _executor_is_wanted(self) -> bool:
        """Whether a job on Celery's way waits for this thread."""
        return int(self._executor._work_queue.qsize()) > self._asked

    def _refill(self) -> bool:
        found = super()._refill()
        if len(self._waiting) > 1:
            self.go()
        return found

    def _consumed(self) -> list[str]:
        return [queue for queue in self._queues if self._pickup.consumes(queue)]


@signals.worker_ready.connect(weak=False)
def _open(sender: t.Any, **_: t.Any) -> None:
    """Give a worker its lane, if its pool runs jobs in the worker's own process."""
    engine: Engine | None = getattr(sender.task_consumer.channel, "engine", None)
    if engine is None or not isinstance(sender.pool, thread.TaskPool | solo.TaskPool):
        return
    logfile.batch()
    ownlines.shorten()
    if sender.hub is not None:
        lane = SoloLane if isinstance(sender.pool, solo.TaskPool) else ThreadsLane
        engine.lane = lane(engine, sender)
        sender.task_consumer.channel.tell_lane()
