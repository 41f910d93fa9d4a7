"""Bundles: several quick jobs that a process of a prefork pool is given at once.

Each message between the processes of a pool costs more than a quick job does. What is in a bundle
is not lost to others: a process takes a ticket for each job before it starts it, and whoever has
the tickets that are left has the jobs that are left. So the worker can take back what waits behind
a job that turned out slow, and knows afterwards which of them have begun.

What comes of the jobs goes to the server in one round trip, at the end of the bundle or after a
moment.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
import typing as t

from billiard import get_start_method
from billiard.einfo import ExceptionInfo
from billiard.pool import MaybeEncodingError
from celery.app import trace

from .. import logfile, ownlines
from ..engine import refused
from . import short
from .commits import SOON, Commits
from .light import LightRequest, _current

if t.TYPE_CHECKING:
    from ..._store import Finished

__all__ = ["RAISED", "Job", "Outcome", "Tickets", "make_slots", "run", "slots"]

#: A job as it travels: the name of its task, its id, its request, and of :class:`.LightRequest`
#: ``simple`` and ``tells``.
Job = tuple[str, str, dict[str, t.Any], bool, bool]
#: What came of it, as :data:`.short.Outcome` or :data:`RAISED` and the error; whether its end was
#: told, and how long it all took.
Outcome = tuple[int, t.Any, float, bool, float]
#: The tracer itself ended with an exception, as for a rejected message.
RAISED = 2


class Tickets:
    """The right to start the jobs of one bundle, one after the other.

    It is a counter in the kernel: two processes cannot take the same ticket, and one that is killed
    leaves nothing locked. It must be there before the processes are.
    """

    def __init__(self) -> None:
        self._counter = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK)

    def issue(self, count: int) -> None:
        """Make the tickets of a bundle, once the one before is over."""
        self.withdraw()
        os.eventfd_write(self._counter, count)

    def take(self) -> bool:
        """Take one; false if none is left."""
        try:
            os.eventfd_read(self._counter)
        except BlockingIOError:
            return False
        return True

    def withdraw(self) -> int:
        """Take all that are left; how many there were."""
        count = 0
        while self.take():
            count += 1
        return count


#: By the numbers that bundles name. Processes that are forked later have them, too.
slots: list[Tickets] = []


def make_slots(processes: int) -> None:
    """Make those of a pool, before its processes are."""
    # Otherwise, and for processes that a pool grows by later, a bundle is one job. A process that
    # is not forked, as on macOS, would not have them.
    if not slots and hasattr(os, "eventfd") and get_start_method() == "fork":
        slots.extend(Tickets() for _ in range(max(8, 2 * processes)))


class _Ends:
    """The ends of the jobs of a bundle, until they are told together."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits
        self._held: list[Finished] = []
        self._since = 0.0
        self._lock = threading.Lock()
        commits.watch = self._look

    def add(self, end: Finished) -> None:
        with self._lock:
            if not self._held:
                self._since = time.monotonic()
            self._held.append(end)
        self._commits.look()

    def tell(self) -> None:
        """Tell all, and wait for the answers."""
        self._commits.settle(self._take())
        self._commits.flush(None)

    def _take(self) -> list[Finished]:
        with self._lock:
            held, self._held = self._held, []
        return held

    def _look(self) -> bool:
        # The job after them may take long. In the thread of the commits.
        if self._held and time.monotonic() - self._since > SOON:
            for end in self._take():
                self._commits.finish(end)
        return bool(self._held)


class _Bundled:
    """What the short way and the backend know of a job of a bundle; see :class:`.LightRequest`."""

    def __init__(self, job: Job, ends: _Ends | None) -> None:
        name, self.id, self._request_dict, self.simple, self.tells = job
        request = self.request_dict = self._request_dict
        self.task = _task(job)
        self.name = request["shadow"] or name
        self.args, self.kwargs = request["args"], request["kwargs"]
        self.argsrepr, self.kwargsrepr = request["argsrepr"], request["kwargsrepr"]
        self.ended = False
        self.began = time.monotonic()
        self._ends = ends

    context: t.Any = LightRequest.context
    ran: t.Any = LightRequest.ran

    def end(self, end: Finished) -> None:
        if self._ends is not None:
            self.ended = True
            self._ends.add(end)


_ends: dict[int, _Ends] = {}


def _ends_of(task: t.Any) -> _Ends | None:
    """Where the ends of a task go; ``None`` if they are stored elsewhere."""
    backend = task.backend
    ends = _ends.get(id(backend))
    store = getattr(backend, "store", None)
    if ends is None and store is not None:
        engine = getattr(task.app, "engine", None)
        # The processes of an app that knows us by its settings only have no engine.
        commits = Commits(store, _told) if engine is None else engine.commits
        ends = _ends[id(backend)] = _Ends(commits)
    return ends


def _told(ends: t.Sequence[Finished], answers: t.Sequence[int]) -> None:
    for end, answer in zip(ends, answers, strict=True):
        if answer < 0:
            refused(end.job_id)


def run(slot: int | None, jobs: list[Job]) -> list[Outcome]:
    """Run a bundle, in a process of the pool.

    :return: What came of those that it started.
    """
    if slot is None:
        # Alone it goes Celery's own way, which tells its end by itself.
        ((name, job_id, request, *_),) = jobs
        began = time.monotonic()
        outcome = trace.fast_trace_task(
            name, job_id, request, (request["args"], request["kwargs"], None), None, None
        )
        return [(*outcome, False, time.monotonic() - began)]
    ownlines.shorten()
    outcomes = []
    used = set()
    with logfile.batched():
        try:
            for job in jobs:
                if not slots[slot].take():
                    break
                ends = _ends_of(_task(job))
                used.add(ends)
                outcomes.append(_run_one(job, ends))
        finally:
            for ends in used:
                if ends is not None:
                    ends.tell()
    return outcomes


def _run_one(job: Job, ends: _Ends | None) -> Outcome:
    bundled = _Bundled(job, ends)
    light = t.cast("LightRequest", bundled)
    token = _current.set(None if ends is None else light)
    try:
        failed, value, runtime = _portable(short.run(light))
    except Exception:
        failed, value, runtime = RAISED, ExceptionInfo(), 0.0
    finally:
        _current.reset(token)
    return failed, value, runtime, bundled.ended, bundled.ran


def _portable(outcome: short.Outcome) -> short.Outcome:
    """What the pool says where an error cannot be sent: of this job, not of the whole bundle."""
    if outcome[0]:
        try:
            pickle.dumps(outcome)
        except Exception as error:
            wrapped = MaybeEncodingError(error, outcome[1])
            reason = (MaybeEncodingError, wrapped, error.__traceback__)
            return RAISED, ExceptionInfo(reason), 0.0
    return outcome


def _task(job: Job) -> t.Any:
    return trace._localized[0][job[0]]
