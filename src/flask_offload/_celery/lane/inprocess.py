"""The lane of a worker that runs jobs in the process which received them."""

from __future__ import annotations

import logging
import os
import threading
import time
import typing as t
from contextlib import suppress

from celery.worker import state as worker_state

from ..._store import Ahead, StoreUnavailable, fetched
from . import short
from .base import SHARE, Lane
from .commits import SOON
from .light import LightRequest, _current

if t.TYPE_CHECKING:
    from ..engine import Engine
    from ..message import Message

__all__ = ["HOT", "InProcessLane", "SoloLane"]

log = logging.getLogger("flask_offload")

#: Seconds that a job takes at most of which one thread runs one after the other.
HOT = 0.0003
#: Of how many of them it looks after each what the server has to say.
STEP = 8
#: Seconds that the event loop of a solo worker stays away.
TURN = 0.05
#: Seconds until the server is asked ahead again that could not be.
RETRY = 1.0


class InProcessLane(Lane):
    """What the pools of threads and solo share."""

    def __init__(self, engine: Engine, consumer: t.Any) -> None:
        super().__init__(engine, consumer)
        # As the engine's: a shutdown may interrupt who holds it.
        self._lock = threading.RLock()
        self._refilling = threading.Lock()
        self._loops = self._slow = self._in_pool = 0
        self._pid = os.getpid()
        self._commits = engine.commits
        #: For jobs that are wanted soon.
        self._ahead = Ahead(engine.store)
        self._ask_after = 0.0
        #: Whether somebody takes it who will not run it.
        self._landing = False

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
                light.on_accepted(self._pid, began)
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

    # -- more of them

    def _refill(self) -> bool:
        """Fetch more before the threads have nothing to do; false if there is nothing."""
        # Of what is on its way, whoever reads it, there may be something for this thread.
        on_its_way = self._ahead.asked or self._landing
        if not (on_its_way or (self._more and not self.stopped)):
            return False
        if not self._refilling.acquire(blocking=on_its_way):
            return False
        try:
            if self._ahead.asked:
                self._land()
                return bool(self._waiting)
            share = self._share()
            if share <= 0 or not self._more or self.stopped:
                return bool(self._waiting)
            self._hand_on(self.fetch(self._consumed(), 0, self._quick, share))
        except StoreUnavailable as error:
            log.warning("No jobs could be fetched: %s", error)
            self._more = False
        finally:
            self._refilling.release()
        return bool(self._waiting)

    def _between(self, more: bool = True) -> None:
        """Between quick jobs: have told what there is to tell, and ask for more in good time,
        without waiting for an answer."""
        self._commits.carry()
        low = more and self._more and self._behind < SHARE / 2 * self._quick
        if not (self._ahead.asked or low) or not self._refilling.acquire(blocking=False):
            return
        try:
            if self._ahead.asked:
                if self._ahead.answered:
                    self._land()
            elif not self.stopped and self._moved_at > self._ask_after:
                self._ahead.ask(self.fetch_command(self._consumed(), 0, self._quick, self._share()))
        except StoreUnavailable:
            # There is still something to do. Who has not will say so.
            self._ask_after = time.monotonic() + RETRY
        finally:
            self._refilling.release()

    def _share(self) -> float:
        """Seconds of work that each may have more."""
        return SHARE - self._behind / self._quick

    def _land(self) -> None:
        """Take what was asked for ahead; waits for it."""
        asked_at = self._ahead.asked_at
        found = fetched(self._ahead.read(), asked_at)
        # Until now nobody has renewed their leases.
        if self.stopped or time.monotonic() - asked_at > self._engine.settings.lease / 3:
            self.give_back(found.jobs)
        else:
            self._hand_on(self.take(found))

    def _hand_on(self, messages: list[tuple[Message, str]]) -> None:
        # Celery's own consumer is in another thread; it gets them from the line.
        for message, _ in messages:
            tag = message["properties"]["delivery_tag"]
            self._engine.release(tag, forgive=True, in_pool=True)

    def _consumed(self) -> t.Sequence[str]:
        """The queues of the last look that are still consumed."""
        return self._queues

    def _give_back_stuck(self) -> bool:
        if time.monotonic() - self._moved_at > SOON:
            # A job that turned out slow keeps its thread from sending, and from reading answers.
            self._commits.put_down()
            if self._ahead.asked:
                self._land_soon()
        return super()._give_back_stuck() or self._ahead.asked

    def _land_soon(self) -> None:
        """Take what was asked for ahead, in place of who asked."""
        self._landing = True
        try:
            with self._refilling:
                if self._ahead.asked:
                    self._land()
        except StoreUnavailable as error:
            log.warning("No jobs could be fetched: %s", error)
        finally:
            self._landing = False

    def disown(self) -> None:
        super().disown()
        # Its parent reads the answer, and what holds the lock is a thread of its parent.
        self._ahead, self._refilling = Ahead(self.store), threading.Lock()

    def end(self) -> None:
        self.stop()
        self._land_soon()
        super().end()


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
        self._commits.look()
        run = 0
        try:
            while True:
                try:
                    light, cost = self._waiting.popleft()
                except IndexError:
                    if (self._ahead.asked or self._moved_at < until) and self._refill():
                        continue
                    return
                if cost > HOT:
                    self._commits.put_down()
                self._run(light, cost)
                run += 1
                if cost <= HOT and run % STEP == 0:
                    self._between(self._moved_at < until)
        finally:
            self._commits.put_down()
            self._loops = 0
