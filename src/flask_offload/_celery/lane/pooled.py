"""What the worker of a prefork pool knows of a job, and of a bundle of them, in its processes."""

from __future__ import annotations

import logging
import time
import typing as t
from contextlib import suppress

from celery.worker import state as worker_state

from ..._store import StoreUnavailable
from ..message import AT_ONCE
from .bundles import RAISED, Job, Outcome, slots
from .commits import SOON
from .light import LightRequest

if t.TYPE_CHECKING:
    from .prefork import PreforkLane

__all__ = ["Bundle", "PooledRequest"]

log = logging.getLogger("flask_offload")

#: The request class of tasks whose every end is told by the backend.
OURS = "flask_offload._celery.request:OffloadRequest"
#: Seconds after which the ends of a bundle are told that are older than what runs.
GRACE = 5 * SOON


class PooledRequest(LightRequest):
    """A request that a process of the pool runs."""

    bundle: Bundle | None = None

    def __init__(self, *args: t.Any) -> None:
        super().__init__(*args)
        self.time_limits = self._request_dict["timelimit"] or (None, None)

    @property
    def is_alone(self) -> bool:
        """Whether it must not share a process: it has a limit, or may have cost others theirs."""
        task = self._task
        limits = (*self.time_limits, task.time_limit, task.soft_time_limit)
        return any(limits) or AT_ONCE not in self._request_dict

    @property
    def travelling(self) -> Job:
        """The job, as its process gets it."""
        return self._type, self.id, self._request_dict, self.simple, self.tells

    def terminate(self, pool: t.Any, signal: t.Any = None) -> None:
        self._when_alone(super().terminate, pool, signal)

    def cancel(self, pool: t.Any, signal: t.Any = None, emit_retry: bool = True) -> None:
        self._when_alone(super().cancel, pool, signal, emit_retry)

    def _when_alone(self, kill: t.Callable[..., None], *args: t.Any) -> None:
        """Kill the process that runs this job, if one does.

        One that has not been started is known as revoked, and will not be.
        """
        bundle = self.bundle
        if bundle is None:
            return
        bundle.look()
        if self.bundle is None:
            return
        if len(bundle.lights) == 1:
            kill(*args)
        else:
            # What came of those before it is told in a moment, and must not get lost with it.
            bundle.hub.call_later(GRACE, self._kill, kill, *args)

    def _kill(self, kill: t.Callable[..., None], *args: t.Any) -> None:
        if self.bundle is not None:
            kill(*args)

    def lose(self) -> None:
        """Give the job back, unless its end was told."""
        worker_state.task_ready(self)
        with suppress(StoreUnavailable):  # its lease will run out
            if self._offload.release(self.tag):
                self.send_event("task-rejected", requeue=True)
        self.acknowledged = True

    def _on_ack(self, *_: t.Any) -> None:
        if self.ended or self._task.Request == OURS:
            # The result is stored by now, and with it the lease has ended.
            self._offload.finished(self.tag)
        with suppress(StoreUnavailable):  # its lease will run out
            self._offload.ack(self.tag)

    def _on_reject(self, logger: t.Any, errors: t.Any, requeue: bool) -> None:
        with suppress(StoreUnavailable):  # its lease will run out
            if requeue:
                self._offload.release(self.tag)
            else:
                self._offload.ack(self.tag)


class Bundle:
    """Some jobs on their way through the pool.

    :param slot: Number of their tickets; ``None`` for a single job, which needs none.
    """

    def __init__(
        self, lane: PreforkLane, lights: list[PooledRequest], slot: int | None, *, slow: bool
    ) -> None:
        self._lane, self.lights, self.slot = lane, lights, slot
        self.slow = slow
        self.kept = False
        self.since = time.monotonic()
        self._pid = 0
        self.hub = lane.hub
        self._accepted_at = 0.0
        #: Celery's pool knows it by that.
        self.result: t.Any = None
        for light in lights:
            light.bundle = self

    @property
    def started(self) -> bool:
        """Whether a process has it, or will in any case."""
        return bool(self.result._accepted or self.result._write_to is not None)

    def keep(self) -> None:
        """Have the pool not forget it, as it does with what it takes for not accepted.

        The process would wait half a minute for its result to be read.
        """
        self.kept = not self.result._accepted
        self.result._accepted = True

    @property
    def is_lost(self) -> bool:
        """Whether its process ended before it accepted it, which the pool does not see if kept."""
        return self.kept and not self._pid and not self.result._write_to._is_alive()

    def on_accepted(self, pid: int, at: float) -> None:
        self._pid, self._accepted_at, self.kept = pid, at, False
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
            # The server knows which of their ends were told.
            light.lose()
        if self.lights:
            self._lane.measure(self.lights[-1], time.monotonic() - self.since)
            self.lights[-1].on_failure(reason)
        self._lane.go()
