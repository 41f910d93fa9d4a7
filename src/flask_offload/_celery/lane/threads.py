"""The lane of a pool of threads: one waits for jobs, and runs one itself; see :mod:`.pickup`.

Jobs that are very quick are all run by one thread, one after the other. Several would not be any
quicker, as one interpreter runs them all, but would wait for each other to hand it over. As soon as
one of these jobs takes long, the other threads are there for what waits behind it.
"""

from __future__ import annotations

import math
import sys
import threading
import time
import typing as t

from celery import signals
from celery.concurrency import solo, thread

from .. import logfile, ownlines
from .base import SHARE
from .commits import SOON
from .inprocess import HOT, STEP, InProcessLane, SoloLane
from .pickup import Pickup

if t.TYPE_CHECKING:
    from ..._store import Fetched
    from ..engine import Engine
    from ..message import Message

__all__ = ["ThreadsLane"]

#: Seconds that a job takes at most for which no other thread is sent to wait for the next one; that
#: would take from the interpreter as it starts. Should it take longer, it is made good for.
BRIEF = 0.002
#: How often each job waits for something else, and for how many seconds several threads are better
#: then.
WAITS, APART = 0.5, 1.0
#: After how many jobs this is looked at.
SAMPLE = 64


if sys.platform == "linux":
    import resource

    def _waited() -> int:
        """How often this thread has waited for something, other than for a processor."""
        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw

else:

    def _waited() -> int:
        return 0


class ThreadsLane(InProcessLane):
    """The plain jobs of a worker with a pool of threads."""

    def __init__(self, engine: Engine, consumer: t.Any) -> None:
        super().__init__(engine, consumer)
        self._executor = self._pool.executor
        self._asked = 0
        #: Whether a thread waits for jobs.
        self._waits = False
        #: The thread that runs all that is quick, if one does.
        self._alone: int | None = None
        #: Several do until then. Where nobody can tell what jobs wait for, they always do.
        self._apart_until = 0.0 if sys.platform == "linux" else math.inf
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
        return self._has_slow() and self._may_wait(self._free + 1 - len(self._waiting))

    def _may_wait(self, threads: int) -> bool:
        return threads > 0 and not self.stopped and self._pickup.open

    # -- through

    def _has_slow(self) -> bool:
        """Whether what waits is not for one thread alone."""
        try:
            return any(cost > HOT for _, cost in self._waiting.copy())
        except RuntimeError:
            return True  # It changes right now.

    def take(self, found: Fetched) -> list[tuple[Message, str]]:
        rest = super().take(found)
        if found.jobs:
            self._pickup.took_from(found.jobs[0].queue)
        if self._alone is not None and self._has_slow():
            self._spread()
        return rest

    def go(self) -> bool:
        if self._alone is None:
            self._spread()
        return True

    def _spread(self) -> None:
        """Have as many threads as there is work for, and one that waits for more."""
        with self._lock:
            wanted = len(self._waiting) + (not self._waits and self._may_wait(1)) - self._asked
            for _ in range(min(self._free, wanted)):
                try:
                    self._executor.submit(self._loop)
                except RuntimeError:
                    break  # the pool is stopping; see end
                self._loops += 1
                self._asked += 1

    def _loop(self) -> None:
        with self._lock:
            self._asked -= 1
        me, run, waited = threading.get_ident(), 0, 0
        while run % STEP or not self._executor_is_wanted():
            try:
                light, cost = self._waiting.popleft()
            except IndexError:
                if self._refill():
                    waited = _waited()
                    continue
                self._not_alone(me)
                if self._wait_or_leave():
                    continue
                return
            if cost > HOT or self._moved_at < self._apart_until:
                run = 0
                self._not_alone(me)
                if cost > BRIEF or self._waiting or self._more:
                    if not self._waits:
                        self._spread()
                else:
                    self._commits.look()
                self._run(light, cost)
                if self._more and self._behind < SHARE / 2 * self._quick:
                    self._refill()
                continue
            if self._alone != me:
                if self._alone is not None:
                    # Another one does, maybe since the job before took long.
                    self._waiting.appendleft((light, cost))
                    break
                self._alone, run, waited = me, 0, _waited()
                self._commits.look()
            self._run(light, cost)
            run += 1
            if run % STEP == 0 and self._alone == me:
                self._between()
                if run % SAMPLE == 0:
                    before, waited = waited, _waited()
                    if waited - before > WAITS * SAMPLE:
                        self._apart_until = self._moved_at + APART
                        self._not_alone(me)
                        self._spread()
        self._not_alone(me)
        with self._lock:
            self._loops -= 1
        self.go()

    def _not_alone(self, me: int) -> None:
        if self._alone == me:
            self._alone = None
            self._commits.put_down()

    def _give_back_stuck(self) -> bool:
        slow = time.monotonic() - self._moved_at > SOON
        if slow and (self._alone is not None or self._unheard):
            self._alone = None
            self._spread()
        if self._alone is None:
            # Also where its thread has taken it up right now.
            self._commits.put_down()
        return super()._give_back_stuck() or self._alone is not None or self._unheard

    @property
    def _unheard(self) -> bool:
        """Whether a job keeps the thread that would wait for more."""
        return self._loops > 0 and not self._waits and self._may_wait(self._free)

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
        return self._pickup.next_queues()


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
