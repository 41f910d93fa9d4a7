"""The lane of a worker that runs jobs in the process which received them."""

from __future__ import annotations

import logging
import os
import threading
import time
import typing as t
from contextlib import suppress

from celery.worker import state as worker_state

from ..._store import StoreUnavailable
from . import short
from .base import SHARE, Lane
from .light import LightRequest, _current

if t.TYPE_CHECKING:
    from ..engine import Engine

__all__ = ["InProcessLane", "SoloLane"]

log = logging.getLogger("flask_offload")

#: Seconds that the event loop of a solo worker stays away.
TURN = 0.05


class InProcessLane(Lane):
    """What the pools of threads and solo share."""

    def __init__(self, engine: Engine, consumer: t.Any) -> None:
        super().__init__(engine, consumer)
        self._lock = threading.Lock()
        self._refilling = threading.Lock()
        self._loops = self._slow = self._in_pool = 0

    @property
    def size(self) -> int:
        return int(self._pool.limit or 1)

    @property
    def _quick(self) -> int:
        """How many are at work on what is quick; who asks is among them."""
        return max(1, self._loops - self._slow)

    @property
    def _free(self) -> int:
        return self.size - self._loops - self._in_pool

    def free(self, in_pool: int) -> int:
        self._in_pool = in_pool
        return 0 if self.stopped else max(0, self._free)

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

    def _refill(self) -> bool:
        """Fetch more before the threads have nothing to do; false if there is nothing."""
        if self.stopped or not self._refilling.acquire(blocking=False):
            return False
        try:
            quick = self._quick
            share = SHARE - self._behind / quick
            if share <= 0:
                return bool(self._waiting)
            for message, _ in self.fetch(self._consumed(), 0, quick, share):
                # Celery's own consumer is in another thread; it gets it from the line.
                self._engine.release(
                    message["properties"]["delivery_tag"], forgive=True, in_pool=True
                )
        except StoreUnavailable as error:
            log.warning("No jobs could be fetched: %s", error)
            self._more = False
        finally:
            self._refilling.release()
        return bool(self._waiting)

    def _consumed(self) -> t.Sequence[str]:
        """The queues of the last look that are still consumed."""
        return self._queues


class SoloLane(InProcessLane):
    """The jobs of a solo worker, in the thread of its event loop."""

    def go(self) -> bool:
        if not self._waiting:
            return False
        self._turn()
        return True

    def _turn(self) -> None:
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
