"""The lane of a prefork pool: its worker fetches many jobs, and its processes get them in bundles.

The worker keeps what waits, so that a process which has nothing to do gets the next at once, and so
that what waits too long can be given back; see :mod:`.lane`. All of this is in the thread of its
event loop.
"""

from __future__ import annotations

import logging
import math
import time
import typing as t
import weakref
from contextlib import suppress

from celery import signals
from celery.concurrency import prefork
from celery.concurrency.asynpool import SCHED_STRATEGY_FAIR, AsynPool
from celery.worker import state as worker_state

from .._store import StoreUnavailable
from .bundles import RAISED, Outcome, run, slots
from .lane import SHARE, STUCK, Lane
from .light import LightRequest
from .message import AT_ONCE

if t.TYPE_CHECKING:
    from .engine import Engine
    from .message import Message

__all__ = ["PreforkLane"]

log = logging.getLogger("flask_offload")

#: Seconds of work of one bundle, and most jobs of one.
BUNDLE, MOST = 0.005, 25


class PooledRequest(LightRequest):
    """A request that a process of the pool runs."""

    bundle: Bundle | None = None

    def __init__(self, *args: t.Any) -> None:
        super().__init__(*args)
        self.time_limits = self._request_dict.get("timelimit") or (None, None)

    @property
    def is_alone(self) -> bool:
        """Whether it must not share a process: it has a limit, or may have cost others theirs."""
        task = self._task
        limits = (*self.time_limits, task.time_limit, task.soft_time_limit)
        return any(limits) or AT_ONCE not in self._request_dict

    def terminate(self, pool: t.Any, signal: t.Any = None) -> None:
        if self.bundle is not None:
            self.bundle.look()
        # In no process: it is known as revoked, and will not be started.
        if self.bundle is not None:
            super().terminate(pool, signal)

    def _ack_line(self, *_: t.Any) -> None:
        if self.ended or self._task.Request == OURS:
            # The result is stored by now, and with it the lease has ended.
            self._offload.finished(self.tag)
        self._offload.ack(self.tag)

    def _reject_line(self, logger: t.Any, errors: t.Any, requeue: bool) -> None:
        with suppress(StoreUnavailable):  # its lease will run out
            if requeue:
                self._offload.release(self.tag)
            else:
                self._offload.ack(self.tag)


#: The request class of tasks whose every end is told by the backend.
OURS = "flask_offload._celery.request:OffloadRequest"


class Bundle:
    """Some jobs on their way through the pool.

    :param slot: Number of their tickets; ``None`` for a single job, which needs none.
    """

    def __init__(
        self, lane: PreforkLane, lights: list[PooledRequest], slot: int | None, *, slow: bool
    ) -> None:
        self._lane, self.lights, self.slot = lane, lights, slot
        self.slow = slow
        self.since = time.monotonic()
        self._pid = 0
        self._accepted_at = 0.0
        #: Celery's pool knows it by that.
        self.result: t.Any = None
        for light in lights:
            light.bundle = self

    @property
    def started(self) -> bool:
        """Whether a process has it, or will in any case."""
        return self.result._accepted or self.result._write_to is not None

    def on_accepted(self, pid: int, at: float) -> None:
        self._pid, self._accepted_at = pid, at
        if self.lights:
            self.lights[0].on_accepted(pid, at)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        for light in self.lights:
            light.on_timeout(soft, timeout)

    def look(self) -> None:
        """Give what has not been started back to the lane, and find out which job runs."""
        if self.slot is None or self.slow:
            return
        self.slow = True
        left = slots[self.slot].withdraw()
        begun = len(self.lights) - left
        back, self.lights = self.lights[begun:], self.lights[:begun]
        for light in self.lights:
            self._accept(light)
        for light in self.lights[:-1]:
            # It is over. What came of it is heard of with the others.
            worker_state.task_ready(light)
            light.bundle = None
        self._lane.take_back(back)

    def _accept(self, light: PooledRequest) -> None:
        if light.time_start is None:
            light.on_accepted(self._pid, self._accepted_at)

    def on_success(self, outcomes: list[Outcome]) -> None:
        self._lane.over(self)
        for light, (failed, value, runtime, ended, took) in zip(
            self.lights, outcomes, strict=False
        ):
            self._lane.measure(light, took)
            try:
                self._accept(light)
                light.ended = ended
                if failed == RAISED:
                    light.on_failure(value)
                else:
                    light.on_success((failed, value, runtime))
            except MemoryError:
                raise
            except Exception:
                log.exception("What came of job %s was not told to everybody.", light.id)
        self._lane.go()

    def on_failure(self, reason: t.Any) -> None:
        """The process is gone, or is about to be, and with it the job that it was at."""
        self._lane.over(self)
        self.look()
        for light in self.lights[:-1]:
            # Their ends may have been told. The server knows, and takes back those that were not.
            light.reject(requeue=True)
        if self.lights:
            self._lane.measure(self.lights[-1], time.monotonic() - self.since)
            self.lights[-1].on_failure(reason)
        self._lane.go()


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

    # -- what fits

    @property
    def size(self) -> int:
        return int(self._pool.num_processes)

    @property
    def _idle(self) -> int:
        """How many processes have nothing to do, and will not have in a moment."""
        pool: AsynPool = self._pool._pool
        return min(
            int(self._semaphore.value),
            len(pool._all_inqueues) - len(pool._busy_workers) - len(pool.outbound_buffer),
        )

    @property
    def _quick(self) -> int:
        return sum(not bundle.slow for bundle in self._out)

    def free(self, in_pool: int) -> int:
        """For how many processes to fetch: those that have nothing to do, or soon will.

        :param in_pool: How many jobs are on Celery's own way.
        """
        if self.stopped or self._pool._pool is None:
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

    # -- through

    def go(self) -> bool:
        """Give processes what was taken; whether there was something."""
        if self.stopped:
            return False
        found = bool(self._waiting)
        while self._waiting and self._idle > 0 and (lights := self._next()):
            self._send(lights)
        if self._waiting or self._quick:
            self._watch()
        channel = self._consumer.task_consumer.channel
        if self._more and len(self._waiting) * self._each < SHARE / 2:
            channel.fetch_soon()
        return found

    def _next(self) -> list[PooledRequest]:
        # Others have their share, too.
        most = min(MOST, math.ceil(len(self._waiting) / max(1, self.size)))
        pool: AsynPool = self._pool._pool
        if not self._slots or any(
            (pool._maxtasksperchild, pool._max_memory_per_child, pool.timeout, pool.soft_timeout)
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
        bundle.result = self._pool.apply_async(
            run,
            args=(slot, [(light.type, light.id, light.request_dict) for light in lights]),
            accept_callback=bundle.on_accepted,
            timeout_callback=bundle.on_timeout,
            callback=bundle.on_success,
            error_callback=bundle.on_failure,
            **limits,
        )
        for light in lights:
            light._apply_result = weakref.ref(bundle.result)

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
        if self._watching is None and (hub := self._consumer.hub) is not None:
            self._watching = hub.call_later(STUCK / 2, self._look)

    def _look(self) -> None:
        self._watching = None
        now = time.monotonic()
        for bundle in list(self._out):
            if now - bundle.since > STUCK:
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
        for tag in self._forget():
            with suppress(StoreUnavailable):  # its lease will run out
                self._engine.release(tag, forgive=True)

    def _take_unstarted(self) -> None:
        """Take back what no process has started, as far as that can be known."""
        for bundle in list(self._out):
            if bundle.started:
                bundle.look()
                # The pool must not forget it, as it does with what it takes for not accepted: the
                # process would wait half a minute for its result to be read.
                bundle.result._accepted = True
            else:
                with suppress(ValueError):
                    self._pool._pool.outbound_buffer.remove(bundle.result)
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
    ):
        engine.lane = PreforkLane(engine, sender)
