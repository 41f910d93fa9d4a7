"""The lane of a prefork pool: its worker fetches many jobs, and its processes get them in bundles.

The worker keeps what waits, so that a process which has nothing to do gets the next at once, and so
that what waits too long can be given back; see :mod:`.base`. All of this is in the thread of its
event loop.
"""

from __future__ import annotations

import math
import time
import typing as t
import weakref
from contextlib import suppress

from celery import signals
from celery.concurrency import prefork
from celery.concurrency.asynpool import SCHED_STRATEGY_FAIR, AsynPool
from celery.worker import state as worker_state

from ..._store import StoreUnavailable
from .. import logfile, ownlines
from .base import SHARE, STUCK, Lane
from .bundles import make_slots, run, slots
from .pooled import Bundle, PooledRequest

if t.TYPE_CHECKING:
    from ..._store import Fetched
    from ..engine import Engine
    from ..message import Message

__all__ = ["PreforkLane", "make_slots"]

#: Seconds of work of one bundle, and most jobs of one.
BUNDLE, MOST = 0.005, 25


class PreforkLane(Lane):
    """The plain jobs of one worker with a prefork pool.

    :param consumer: Celery's, for its pool, its limits and its events.
    """

    request = PooledRequest
    in_loop = True

    def __init__(self, engine: Engine, consumer: t.Any) -> None:
        super().__init__(engine, consumer)
        self._semaphore = consumer.controller.semaphore
        self._out: list[Bundle] = []
        self._slots = list(range(len(slots)))
        self._watching: t.Any = None
        # To shrink, Celery ends processes that have not said yet that they were given something.
        self._pool._pool._worker_active = self._has_work

    # -- what fits

    @property
    def size(self) -> int:
        return int(self._pool.num_processes)

    @property
    def hub(self) -> t.Any:
        return self._consumer.hub

    @property
    def _idle(self) -> int:
        """How many processes have nothing to do, and will not have in a moment."""
        pool: AsynPool | None = self._pool._pool
        if pool is None:
            return 0  # it has stopped
        return min(
            int(self._semaphore.value),
            len(pool._all_inqueues) - len(pool._busy_workers) - len(pool.outbound_buffer),
        )

    def _has_work(self, process: t.Any) -> bool:
        return process.inqW_fd in self._pool._pool._busy_workers

    @property
    def _quick(self) -> int:
        return sum(not bundle.slow for bundle in self._out)

    def free(self, in_pool: int) -> int:
        """For how many processes to fetch: those that have nothing to do, or soon will.

        :param in_pool: How many jobs are on Celery's own way.
        """
        if self.stopped:
            return 0
        if (idle := self._idle) > 0:
            return idle
        quick = self._quick
        return quick if self._more and self._behind < quick * SHARE / 2 else 0

    # -- in

    def fetch(
        self, queues: t.Sequence[str], room: int, slots: int, share: float = SHARE
    ) -> list[tuple[Message, str]]:
        if self._idle <= 0:
            # For those that are at work: only what may wait.
            room, share = 0, share - self._behind / max(1, slots)
        return super().fetch(queues, room, slots, share)

    def take(self, found: Fetched) -> list[tuple[Message, str]]:
        # Written by then that no process has written what came of one of them.
        with logfile.batched():
            return super().take(found)

    # -- through

    def go(self) -> bool:
        """Give processes what was taken; whether there was something."""
        if self.stopped:
            return False
        found = bool(self._waiting)
        while self._waiting and self._idle > 0 and (lights := self._next()):
            self._send(lights)
        if self._waiting or any(b.kept or not b.slow for b in self._out):
            self._watch()
        # There is none while the connection is lost.
        channel = getattr(self._consumer.task_consumer, "channel", None)
        if channel is not None and self._more and self._behind < SHARE / 2:
            channel.fetch_soon()
        return found

    def _next(self) -> list[PooledRequest]:
        # Others have their share, too.
        most = min(MOST, math.ceil(len(self._waiting) / max(1, self.size)))
        pool: AsynPool = self._pool._pool
        if not self._slots or any(
            (
                pool._maxtasksperchild,
                pool._max_memory_per_child,
                pool.timeout,
                pool.soft_timeout,
            )
        ):
            most = 1
        lights: list[PooledRequest] = []
        left = BUNDLE
        while self._waiting and len(lights) < most:
            light, cost = self._waiting[0]
            alone = light.is_alone
            if lights and (alone or cost > left):
                break
            self._waiting.popleft()
            if light.revoked():
                continue
            lights.append(light)
            left -= cost
            if alone:
                break
        return lights

    def _send(self, lights: list[PooledRequest]) -> None:
        slot = None
        limits: dict[str, t.Any] = {}
        slow = False
        if len(lights) > 1:
            slot = self._slots.pop()
            slots[slot].issue(len(lights))
        else:
            (light,) = lights
            hard, soft = light.time_limits
            task = light.task
            slow = self._costs.of(light.type, SHARE) >= SHARE
            limits = {
                "timeout": hard or task.time_limit,
                "soft_timeout": soft or task.soft_time_limit,
                "correlation_id": light.id,
            }
        bundle = Bundle(self, lights, slot, slow=slow)
        self._moved_at = bundle.since
        self._semaphore.acquire(_nothing)
        self._out.append(bundle)
        result = bundle.result = self._pool.apply_async(
            run,
            args=(slot, [light.travelling for light in lights]),
            accept_callback=bundle.on_accepted,
            timeout_callback=bundle.on_timeout,
            callback=bundle.on_success,
            error_callback=bundle.on_failure,
            **limits,
        )
        if result is None:
            # The pool is closed.
            self.stopped = True
            self.over(bundle)
            self.take_back(lights)
            return
        for light in lights:
            light._apply_result = weakref.ref(result)

    def over(self, bundle: Bundle) -> None:
        """Note that a process has a bundle no more."""
        self._moved_at = time.monotonic()
        if bundle in self._out:
            self._out.remove(bundle)
            if bundle.slot is not None:
                self._slots.append(bundle.slot)

    def measure(self, light: PooledRequest, took: float) -> None:
        self._costs.measure(light.type, took)

    # -- back

    def take_back(self, lights: list[PooledRequest]) -> None:
        """Have jobs wait again, in their old order."""
        for light in reversed(lights):
            light.bundle = None
            light._apply_result = None
            self._waiting.appendleft((light, min(SHARE, self._costs.of(light.type, SHARE))))

    def _watch(self) -> None:
        if self._watching is None and (hub := self.hub) is not None:
            self._watching = hub.call_later(STUCK / 2, self._look)

    def _look(self) -> None:
        self._watching = None
        now = time.monotonic()
        for bundle in list(self._out):
            if bundle.is_lost:
                self.over(bundle)
                self.take_back(bundle.lights)
            elif now - bundle.since > STUCK:
                bundle.look()
                bundle.slow = True
        self.go()
        if now - self._moved_at > STUCK:
            self._engine.abandon(self._forget())

    def _forget(self) -> list[str]:
        """Let all that waits go; the delivery tags."""
        tags = []
        while self._waiting:
            light, _ = self._waiting.popleft()
            worker_state.task_ready(light)
            tags.append(light.tag)
        return tags

    def _give_back(self) -> None:
        with suppress(StoreUnavailable):  # their leases will run out
            for tag in self._forget():
                self._engine.release(tag, forgive=True)

    def _take_unstarted(self) -> None:
        """Take back what no process has started, as far as that can be known."""
        pool: AsynPool | None = self._pool._pool
        for bundle in list(self._out):
            if bundle.started:
                bundle.look()
                bundle.keep()
            else:
                if pool is not None and bundle.result in pool.outbound_buffer:
                    pool.outbound_buffer.remove(bundle.result)
                bundle.result.discard()
                self.over(bundle)
                self.take_back(bundle.lights)

    def disconnected(self) -> None:
        """What has not been started goes back as soon as the server is there."""
        self._take_unstarted()
        self._engine.abandon(self._forget())

    def leave(self) -> None:
        self.stop()
        self._take_unstarted()
        self._give_back()


def _nothing() -> None:
    """Whoever acquires the semaphore has looked before that it is free."""


@signals.worker_ready.connect(weak=False)
def _open(sender: t.Any, **_: t.Any) -> None:
    """Give a worker its lane, if it has a prefork pool that is as usual."""
    engine: Engine | None = getattr(sender.task_consumer.channel, "engine", None)
    pool = sender.pool
    if (
        engine is not None
        and isinstance(pool, prefork.TaskPool)
        and isinstance(pool._pool, AsynPool)
        and pool._pool.sched_strategy == SCHED_STRATEGY_FAIR
        and sender.app.use_fast_trace_task
        and pool.forking_enable
        and sender.controller.semaphore is not None
        and sender.controller.pool_putlocks
        # What scales it counts the jobs that Celery has received.
        and sender.controller.autoscaler is None
    ):
        ownlines.shorten()
        engine.lane = PreforkLane(engine, sender)
