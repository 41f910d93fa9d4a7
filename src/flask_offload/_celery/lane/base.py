"""What the lanes of all pools have in common."""

from __future__ import annotations

import atexit
import logging
import time
import typing as t
import weakref
from collections import deque
from contextlib import suppress

from celery import signals
from celery.app import trace
from celery.worker import state as worker_state

from ..._store import Delivery, StoreUnavailable
from ..message import Message, tag
from ..stored import opened
from .costs import Costs
from .light import LightRequest, Unfit

if t.TYPE_CHECKING:
    from ..._store import Fetched, Store
    from ..engine import Engine
    from .pickup import Pickup

__all__ = ["SHARE", "STUCK", "Lane"]

#: Celery's own, which says what it receives.
received = logging.getLogger("celery.worker.strategy")

R = t.TypeVar("R")

#: Seconds of work that may wait behind each thread.
SHARE = 0.02
#: Seconds without a start after which waiting jobs are given back.
STUCK = 0.1
#: Seconds that the end of a worker waits for the results of its last jobs to be stored.
FLUSH = 10.0


class Lane:
    """The plain jobs of one worker.

    :param consumer: Celery's, for its pool, its limits and its events.
    """

    request: type[LightRequest] = LightRequest
    #: Whether the event loop does the work of the lane, not a thread.
    in_loop = False
    #: How threads hear of jobs; other workers hear of them in their event loop.
    pickup: Pickup | None = None

    def __init__(self, engine: Engine, consumer: t.Any) -> None:
        self._engine = engine
        self._consumer = consumer
        self._pool = consumer.pool
        self._waiting: deque[tuple[LightRequest, float]] = deque()
        self._costs = Costs(consumer)
        #: Seconds that one of the waiting jobs takes, as far as is known.
        self._each = 0.0
        self._more = False
        self._moved_at = time.monotonic()
        self._queues: t.Sequence[str] = ()
        self.stopped = False
        engine.commits.watch = self._give_back_stuck
        atexit.register(self.end)
        _lanes.add(self)

    @property
    def _behind(self) -> float:
        """Seconds of work that wait."""
        return len(self._waiting) * self._each

    @property
    def store(self) -> Store:
        return self._engine.store

    # -- what a pool does its own way

    def free(self, in_pool: int) -> int:
        """For how many jobs there is somebody who has nothing to do.

        :param in_pool: How many jobs are on Celery's own way.
        """
        raise NotImplementedError

    def go(self) -> bool:
        """Set the pool to work on what was taken; whether there was something."""
        raise NotImplementedError

    def disconnected(self) -> None:
        """The connection of the event loop is lost. What runs here goes on."""

    def leave(self) -> None:
        """The worker stops, and its pool is next."""

    # -- in

    def _take(self, delivery: Delivery) -> bool:
        """Take a job into the lane; false if it must go Celery's way."""
        consumer = self._consumer
        try:
            found = opened(delivery.envelope)
            if found is None or self.stopped:
                return False
            name, *_ = found.listed
            if not self._costs.fits(name):
                return False
            task = consumer.app.tasks[name]
            light = self.request(self._engine, delivery, found, task, consumer)
        except (Unfit, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return False
        self._tell_received(light)
        light.on_reserved()
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
        if signals.task_received.receivers:
            signals.task_received.send(sender=self._consumer, request=light)
        if light.tells:
            light.send_event(
                "task-received", name=light.name, args=light.argsrepr, kwargs=light.kwargsrepr,
                root_id=light.root_id, parent_id=light.parent_id,
                retries=light.request_dict.get("retries", 0), eta=None, expires=None,
            )  # fmt: skip

    def fetch(
        self, queues: t.Sequence[str], room: int, slots: int, share: float = SHARE
    ) -> list[tuple[Message, str]]:
        """Fetch for threads that have nothing to do; what must go Celery's way is returned."""
        return self.take(self.look(queues, room, slots, share))

    def look(
        self,
        queues: t.Sequence[str],
        room: int,
        slots: int,
        share: float = SHARE,
        *,
        waits: bool = False,
    ) -> Fetched:
        """What the server has for threads that have nothing to do; see :meth:`.Store.fetch`."""
        return self._question(self.store.fetch, queues, room, slots, share, waits)

    def fetch_command(
        self,
        queues: t.Sequence[str],
        room: int,
        slots: int,
        share: float = SHARE,
        *,
        waits: bool = False,
    ) -> tuple[t.Any, ...]:
        """The command that looks."""
        return self._question(self.store.fetch_command, queues, room, slots, share, waits)

    def _question(
        self,
        how: t.Callable[..., R],
        queues: t.Sequence[str],
        room: int,
        slots: int,
        share: float,
        waits: bool,
    ) -> R:
        self._queues = queues
        worker, costs = self._engine.worker, self._costs.shown()
        return how(worker, queues, room, slots=slots, share=share, costs=costs, waits=waits)

    def take(self, found: Fetched) -> list[tuple[Message, str]]:
        """Take jobs in; what must go Celery's way is returned."""
        self._engine.taken(found)
        self._more = found.more
        if self.pickup is not None:
            self.pickup.next_is_due(found)
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

    def stop(self) -> None:
        """Take no more. What runs goes on, and the little that waits behind it is still done."""
        self.stopped = True
        if self.pickup is not None:
            self.pickup.stop()

    def disown(self) -> None:
        """Forget what waits, in a forked child: it is its parent's, which goes on to start it."""
        self._waiting.clear()

    def end(self) -> None:
        """The last that the process does: what its pool did not get to goes back."""
        self.stop()
        self._give_back()
        if self._engine.commits.flush(FLUSH):
            # What Celery's own way has left behind: its pool has ended, nothing runs any more.
            with suppress(StoreUnavailable):
                self._engine.release_all()


@signals.worker_shutting_down.connect(weak=False)
def _close(**_: t.Any) -> None:
    for lane in list(_lanes):
        lane.stop()


_lanes: weakref.WeakSet[Lane] = weakref.WeakSet()
