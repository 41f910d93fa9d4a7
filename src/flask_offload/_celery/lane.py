"""The lane: jobs go from the line straight to the threads of a worker, many at a time.

A pool of threads, or the solo one, runs jobs in the process that received them. There the message
of kombu, the event loop and the pool's queue do nothing for a plain job but cost time. The lane
fetches jobs in batches, and runs each by Celery's own tracer under a request that Celery's
commands, events, logs and signals see as any other. What is not plain takes Celery's way.

A batch holds no job hostage: what may wait behind others is measured, and what waits too long all
the same is given back.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import typing as t
import weakref
from collections import deque
from contextlib import suppress

from celery import signals
from celery.app import trace
from celery.concurrency import solo, thread
from celery.worker import state as worker_state

from .._store import Delivery, StoreUnavailable
from . import logfile, ownlines, short
from .costs import Costs
from .light import LightRequest, Unfit, _current
from .message import Message, tag
from .pickup import Pickup
from .stored import parts

if t.TYPE_CHECKING:
    from .._store import Fetched, Store
    from .engine import Engine

__all__ = ["Lane"]

log = logging.getLogger("flask_offload")
#: Celery's own, which says what it receives.
received = logging.getLogger("celery.worker.strategy")

#: Seconds of work that may wait behind each thread.
SHARE = 0.02
#: Seconds without a start after which waiting jobs are given back.
STUCK = 0.1
#: Seconds that the event loop of a solo worker stays away.
TURN = 0.05
#: Seconds that the end of a worker waits for the results of its last jobs to be stored.
FLUSH = 10.0


class Lane:
    """The plain jobs of one worker.

    :param consumer: Celery's, for its pool, its limits and its events.
    """

    request: type[LightRequest] = LightRequest
    #: Whether the event loop does the work of the lane, not a thread.
    in_loop = False

    def __init__(self, engine: Engine, consumer: t.Any) -> None:
        self._engine = engine
        self._consumer = consumer
        self._pool = consumer.pool
        self._executor = getattr(self._pool, "executor", None)
        self._waiting: deque[tuple[LightRequest, float]] = deque()
        self._costs = Costs(consumer)
        self._lock = threading.Lock()
        self._refilling = threading.Lock()
        self._loops = self._asked = self._slow = self._in_pool = 0
        #: Seconds that one of the waiting jobs takes, as far as is known.
        self._each = 0.0
        self._more = False
        self._moved_at = time.monotonic()
        self._queues: t.Sequence[str] = ()
        self.stopped = False
        #: Whether a thread waits for jobs.
        self._waits = False
        #: How the threads hear of jobs; a solo worker hears of them in its event loop.
        self.pickup = Pickup(self) if self._executor is not None else None
        engine.commits.watch = self._give_back_stuck
        atexit.register(self.end)
        _lanes.add(self)

    @property
    def _behind(self) -> float:
        """Seconds of work that wait."""
        return len(self._waiting) * self._each

    # -- what fits

    @property
    def size(self) -> int:
        return int(self._pool.limit or 1)

    def free(self, in_pool: int) -> int:
        """How many threads have nothing to do.

        :param in_pool: How many jobs are on Celery's own way.
        """
        self._in_pool = in_pool
        return 0 if self.stopped else max(0, self._free)

    @property
    def _free(self) -> int:
        if self.pickup is not None:
            self._in_pool = self.pickup.in_pool
        return self.size - self._loops - self._in_pool

    # -- what the thread asks that waits for jobs

    @property
    def store(self) -> Store:
        return self._engine.store

    @property
    def lease(self) -> float:
        return self._engine.settings.lease

    @property
    def idle(self) -> int:
        """How many threads have nothing to do but wait, this one among them."""
        return max(0, self._free + 1)

    @property
    def has_jobs(self) -> bool:
        return bool(self._waiting)

    def may_wait(self) -> bool:
        """Whether there is no other use for this thread."""
        return not (self.stopped or self._waiting) and self._may_wait(self._free + 1)

    def another_waits(self) -> bool:
        """Whether there will be a thread that waits once this one and others work."""
        return self._may_wait(self._free + 1 - len(self._waiting))

    def _may_wait(self, threads: int) -> bool:
        return threads > 0 and not self.stopped and self.pickup is not None and self.pickup.open

    # -- in

    def _take(self, delivery: Delivery) -> bool:
        """Take a job into the lane; false if it must go Celery's way."""
        consumer = self._consumer
        try:
            found = parts(delivery.envelope)
            if found is None or self.stopped or not self._costs.fits(found.task):
                return False
            task = consumer.app.tasks[found.task]
            light = self.request(self._engine, delivery, found, task, consumer)
        except (Unfit, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return False
        name = found.task
        self._tell_received(light)
        worker_state.task_reserved(light)
        cost = min(SHARE, self._costs.of(name, SHARE))
        self._each += (cost - self._each) / 8
        self._moved_at = time.monotonic()
        self._waiting.append((light, cost))
        return True

    def _tell_received(self, light: LightRequest) -> None:
        if received.isEnabledFor(logging.INFO):
            context = {
                "id": light.id, "name": light.name, "args": light.argsrepr,
                "kwargs": light.kwargsrepr, "eta": None,
            }  # fmt: skip
            received.info(trace.LOG_RECEIVED, context, extra={"data": context})
        signals.task_received.send(sender=self._consumer, request=light)
        light.send_event(
            "task-received", name=light.name, args=light.argsrepr, kwargs=light.kwargsrepr,
            root_id=light.root_id, parent_id=light.parent_id,
            retries=light.request_dict.get("retries", 0), eta=None, expires=None,
        )  # fmt: skip

    def go(self) -> bool:
        """Set threads to work on what was taken; whether there was something."""
        if self._executor is None:
            if not self._waiting:
                return False
            self._turn()
            return True
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

    # -- through

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
            if self._more and self._behind < SHARE / 2:
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
            pickup = self.pickup
            if pickup is None or self._waits or not self._may_wait(self._free + 1):
                self._loops -= 1
                return False
            self._waits = True
        try:
            pickup.wait()
        finally:
            self._waits = False
        return True

    def _executor_is_wanted(self) -> bool:
        """Whether a job on Celery's way waits for this thread."""
        return self._executor is not None and self._executor._work_queue.qsize() > self._asked

    def _turn(self) -> None:
        """The jobs of a solo worker, in the thread of its event loop."""
        until = time.monotonic() + TURN
        self._loops = 1
        try:
            while True:
                try:
                    light, cost = self._waiting.popleft()
                except IndexError:
                    if time.monotonic() < until and self._more and self._refill():
                        continue
                    return
                self._run(light, cost)
        finally:
            self._loops = 0

    def _refill(self) -> bool:
        """Fetch more before the threads have nothing to do; false if there is nothing."""
        if self.stopped or not self._refilling.acquire(blocking=False):
            return False
        try:
            # As many as are at work on what is quick; this one is among them.
            quick = max(1, self._loops - self._slow)
            share = SHARE - self._behind / quick
            if share <= 0:
                return bool(self._waiting)
            queues = self._queues
            if self.pickup is not None:
                queues = [queue for queue in queues if self.pickup.consumes(queue)]
            for message, _ in self.fetch(queues, 0, quick, share):
                # Celery's own consumer is in another thread; it gets it from the line.
                self._engine.release(
                    message["properties"]["delivery_tag"], forgive=True, in_pool=True
                )
        except StoreUnavailable as error:
            log.warning("No jobs could be fetched: %s", error)
            self._more = False
        finally:
            self._refilling.release()
        if self._executor is not None and len(self._waiting) > 1:
            self.go()
        return bool(self._waiting)

    def fetch(
        self, queues: t.Sequence[str], room: int, slots: int, share: float = SHARE
    ) -> list[tuple[Message, str]]:
        """Fetch for threads that have nothing to do; what must go Celery's way is returned."""
        return self.take(self.look(queues, room, slots, share))

    def look(self, queues: t.Sequence[str], room: int, slots: int, share: float = SHARE) -> Fetched:
        """What the server has for threads that have nothing to do."""
        self._queues = queues
        return self.store.fetch(
            self._engine.worker, queues, room, slots=slots, share=share, costs=self._costs.shown()
        )

    def fetch_command(self, queues: t.Sequence[str], room: int, slots: int) -> tuple[t.Any, ...]:
        """The command that looks."""
        self._queues = queues
        worker, costs = self._engine.worker, self._costs.shown()
        return self.store.fetch_command(worker, queues, room, slots, SHARE, costs)

    def take(self, found: Fetched) -> list[tuple[Message, str]]:
        """Take jobs in; what must go Celery's way is returned."""
        self._engine.taken(found)
        self._more = found.more
        if self.pickup is not None:
            self.pickup.next_is_due_in(found.due_in)
        rest = []
        for delivery in found.jobs:
            if not self._take(delivery):
                message = self._engine.message(delivery)
                if message is not None:
                    rest.append((message, delivery.queue))
        return rest

    def give_back(self, jobs: t.Iterable[Delivery]) -> None:
        """Give back what was handed out too late."""
        for delivery in jobs:
            try:
                self._engine.release(tag(delivery), forgive=True)
            except StoreUnavailable:
                self._engine.abandon([tag(delivery)])

    def _run(self, light: LightRequest, cost: float) -> None:
        self._moved_at = began = time.monotonic()
        slow = cost >= SHARE
        if slow:
            with self._lock:
                self._slow += 1
        token = _current.set(light)
        try:
            if not light.revoked():
                light.on_accepted(os.getpid(), began)
                light.on_success(short.run(light))
        except BaseException:
            # Of the task (an exit), or of what looks after it: nobody else hears of it here.
            log.exception("Job %s was interrupted, and is given back.", light.id)
            worker_state.task_ready(light)
            if not light.acknowledged and not light.ended:
                with suppress(StoreUnavailable):
                    self._engine.release(light.tag)
        finally:
            _current.reset(token)
            if slow:
                with self._lock:
                    self._slow -= 1
            self._costs.measure(light.type, time.monotonic() - began)

    # -- back

    def _give_back_stuck(self) -> bool:
        """Give back what waits behind jobs that turned out slow; whether to look again soon."""
        if self._waiting and time.monotonic() - self._moved_at > STUCK:
            self._give_back()
        return bool(self._waiting)

    def _give_back(self) -> None:
        with suppress(IndexError):
            while True:
                light, _ = self._waiting.popleft()
                worker_state.task_ready(light)
                with suppress(StoreUnavailable):  # its lease will run out
                    self._engine.release(light.tag, forgive=True)

    def disconnected(self) -> None:
        """The connection of the event loop is lost. What runs here goes on."""

    def leave(self) -> None:
        """The worker stops, and its pool is next."""

    def stop(self) -> None:
        """Take no more. What runs goes on, and the little that waits behind it is still done."""
        self.stopped = True
        if self.pickup is not None:
            self.pickup.stop()

    def end(self) -> None:
        """The last that the process does: what its pool did not get to goes back."""
        self.stop()
        self._give_back()
        if self._engine.commits.flush(FLUSH):
            # What Celery's own way has left behind: its pool has ended, nothing runs any more.
            with suppress(StoreUnavailable):
                self._engine.release_all()


@signals.worker_ready.connect(weak=False)
def _open(sender: t.Any, **_: t.Any) -> None:
    """Give a worker its lane, if its pool runs jobs in the worker's own process."""
    engine: Engine | None = getattr(sender.task_consumer.channel, "engine", None)
    if engine is None or not isinstance(sender.pool, thread.TaskPool | solo.TaskPool):
        return
    logfile.batch()
    ownlines.shorten()
    if sender.hub is not None:
        engine.lane = Lane(engine, sender)
        sender.task_consumer.channel.tell_lane()


@signals.worker_shutting_down.connect(weak=False)
def _close(**_: t.Any) -> None:
    for lane in list(_lanes):
        lane.stop()


_lanes: weakref.WeakSet[Lane] = weakref.WeakSet()
