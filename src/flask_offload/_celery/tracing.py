"""What happens around a task in the worker: app context, record, ``current_job``."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
import threading
import time
import typing as t
import weakref
from contextvars import ContextVar

from billiard.exceptions import WorkerLostError
from celery import signals
from celery.exceptions import Ignore, Reject
from celery.states import IGNORED, REJECTED
from flask import current_app, has_app_context

from .._current import RunningJob, bind, owners_of
from .._jobs import JobState
from .._store import Finished, NewJob, Started, StoreUnavailable
from ..exceptions import JobCancelled
from . import describe, interrupt
from .message import AT_ONCE, FENCE

if t.TYPE_CHECKING:
    from flask import Flask

    from .app import OffloadCelery

__all__ = [
    "DeliveriesExhausted",
    "Run",
    "around",
    "attempt",
    "claim",
    "context_of",
    "current_run",
    "fence",
    "look_after",
]

log = logging.getLogger("flask_offload")


class DeliveriesExhausted(WorkerLostError):  # type: ignore[misc]
    """The job was started ``OFFLOAD_MAX_DELIVERIES`` times, and no worker lived to finish it."""


def attempt(request: t.Any) -> tuple[int, int]:
    """Which attempt a Celery request belongs to: its counts of replacements and retries."""

    if type(request) is dict:
        return int(request.get("replaced_task_nesting") or 0), int(request.get("retries") or 0)

    def get(key: str) -> int:
        value = request.get(key) if isinstance(request, dict) else getattr(request, key, 0)
        return int(value or 0)

    return get("replaced_task_nesting"), get("retries")


def fence(request: t.Any) -> int:
    """The token of the delivery that a Celery request came with; 0 where there is none."""
    value = request.get(FENCE) if isinstance(request, dict) else getattr(request, FENCE, 0)
    return int(value or 0)


class Run:
    """One run of a task in a worker: a context manager around its body."""

    def __init__(self, task: t.Any, args: t.Any, kwargs: t.Any, request: dict[str, t.Any]) -> None:
        self.task = task
        self.claimed = False
        #: Whether the body has ended.
        self.over = False
        #: Whether its end was told, or is about to be.
        self.ended = False
        self._told = False
        self.began = time.monotonic()
        self._app: OffloadCelery = task.app
        self._input = args, kwargs
        self._request = request
        self._fence, self._attempt = fence(request), attempt(request)
        #: What travels on to other jobs, where the start needs nobody's leave.
        self._origin = request.get(AT_ONCE)
        self._job: RunningJob | None = None
        self._context = self._app.flask_app.app_context()

    @property
    def job(self) -> RunningJob:
        """The job as the task sees it; many never look."""
        if self._job is None:
            # Who tells its start does so in another thread, and must find the same one.
            with _making:
                self._job = self._job or self._make_job()
        return self._job

    @property
    def has_secrets(self) -> bool:
        """Whether it was given values that nobody may read; most have no need of the job for it."""
        return bool(self.task.sensitive) and self.job.has_secrets

    def _make_job(self) -> RunningJob:
        task, request, app = self.task, self._request, self._app
        owners, locale, request_id, root_id = self._origin or ("", "", "", "")
        nesting, retries = self._attempt
        job = NewJob(
            id=request["id"],
            task=task.name,
            queue=(request.get("delivery_info") or {}).get("routing_key") or "",
            owners=owners_of(owners),
            locale=locale,
            request_id=request_id,
            max_retries=task.max_retries,
            root_id=request.get("root_id") or root_id,
            parent_id=request.get("parent_id") or "",
            nesting=nesting,
            retries=retries,
        )
        secrets = describe.arguments(task, *self._input).secrets if task.sensitive else ()
        return RunningJob(job, app.store, app.files, secrets, self._fence)

    def open(self) -> None:
        """Enter the app context."""
        self._context.push()
        self._unbind = bind(self)
        self._token = _run.set(self)

    def close(self) -> None:
        _run.reset(self._token)
        self._unbind()
        self._context.pop()

    @property
    def key(self) -> tuple[str, int]:
        """The id of the job, and the fence of this run of it."""
        return self._request["id"], self._fence

    @property
    def lost(self) -> bool:
        """Whether the job is somebody else's by now."""
        return self._job is not None and self._job.lost

    @property
    def ran(self) -> float | None:
        """Seconds since it began, where that was not told before; see :class:`.Finished`."""
        if self._origin is None or self._told:
            return None
        return time.monotonic() - self.began

    def __enter__(self) -> None:
        """Start the job on its record.

        :raises Ignore: It must not run.
        """
        if self._origin is not None and self._app.engine is not None:
            self._app.engine.commits.start_soon(self)
            return
        pause = 0.002
        while True:
            try:
                started = self._app.store.patiently(self._start)
            except StoreUnavailable as error:
                raise Reject(error, requeue=True) from error
            if started.verdict != "wait":
                break
            # The message overtook the confirmation of its enqueue, or that one will never come.
            time.sleep(min(pause, float(started.why)))
            pause = min(0.05, pause * 2)
        if started.verdict == "cancelled":
            raise JobCancelled
        if started.verdict == "dead":
            raise DeliveriesExhausted(
                f"Started {self._app.settings.max_deliveries} times, and no worker lived to "
                "finish it. OFFLOAD_MAX_DELIVERIES sets the limit."
            )
        if started.verdict == "drop":
            log.info("Dropping a message of job %s: %s.", self.key[0], started.why)
            raise Ignore
        self.job.adopt(*started.origin)

    def tell(self) -> None:
        """Tell the start of a job that began without asking."""
        if self._told or self._origin is None:
            return
        started = self._start()
        self._told = True
        # A start clears what an attempt before has said, and with it what this one has by now.
        if self._job is not None:
            self._job.say_again()
        if self.over or started.verdict == "run":
            return
        # Somebody has cancelled it, or another worker has it.
        lost = started.verdict != "cancelled"
        self.job.stop(lost=lost)
        interrupt.stop(*self.key, interrupt.LeaseLost if lost else JobCancelled)

    def _start(self) -> Started:
        shown = describe.arguments(self.task, *self._input)
        job = dataclasses.replace(
            self.job.job,
            title=describe.title(self.task, self.task.name, shown),
            args=shown.args,
            kwargs=shown.kwargs,
        )
        return self._app.store.start(
            job,
            worker=self._app.worker_name,
            max_deliveries=self._app.settings.max_deliveries,
            fence=self._fence,
            ran=self.ran or 0,
        )

    def __exit__(self, *exc: object) -> None:
        self.over = True
        if self._origin is not None and self._app.engine is not None:
            self._app.engine.commits.started(self)
        sys.stdout.flush()  # What the task printed without a line end.
        if self._job is None:
            return
        try:
            # Before the result: a job that is over takes no more lines.
            self._app.store.patiently(self._job.flush)
        except StoreUnavailable:
            log.warning("The last log lines of job %s were not kept.", self.key[0])

    def settle(self, state: str, retval: t.Any) -> None:
        """Bring the record up to date where Celery stores no result."""
        if state == IGNORED:
            # Raised by the task itself: it is done. Where the record has gone on already
            # (task.replace) or is over, this changes nothing.
            final, fields = JobState.SUCCEEDED, None
        elif state == REJECTED and not getattr(retval, "requeue", False):
            final = JobState.FAILED
            fields = {"error": "The task rejected its message.", "error_type": "Reject"}
        else:
            return
        # What was told before, as of a job that was cancelled, may still be on its way.
        if not self.ended:
            which = self._attempt, self._fence
            end = Finished(self.key[0], final, "", fields or {}, *which, self.ran)
            with contextlib.suppress(StoreUnavailable):
                self._app.store.finish_all([end])


_making = threading.Lock()
_run: ContextVar[Run | None] = ContextVar("offload_run", default=None)


def current_run(job_id: str) -> Run | None:
    """The run of this thread, if it is of that job."""
    run = _run.get()
    return run if run is not None and run.key[0] == job_id else None


def claim(task: t.Any) -> Run | None:
    """The run that was opened for this task, for its one call by Celery's tracer."""
    run = _run.get()
    if run is None or run.claimed or run.task is not task:
        return None
    run.claimed = True
    return run


Tracer = t.Callable[..., t.Any]


def around(task: t.Any, tracer: Tracer) -> Tracer:
    """Celery's tracer of a task, inside of a run.

    It lasts until Celery is done with the task: callbacks and handlers are in the app context, too.
    """

    def trace(uuid: str, args: t.Any, kwargs: t.Any, request: t.Any = None) -> t.Any:
        run = Run(task, args, kwargs, request or {})
        run.open()
        try:
            outcome = tracer(uuid, args, kwargs, request)
            info = outcome[1]
            if info is not None and info.state in {IGNORED, REJECTED}:
                run.settle(info.state, info.retval)
            return outcome
        finally:
            run.close()

    return trace


@contextlib.contextmanager
def context_of(flask_app: Flask) -> t.Iterator[None]:
    """The app context of the caller, if it is of that app, or one of its own."""
    with contextlib.ExitStack() as stack:
        if not has_app_context() or current_app != flask_app:
            stack.enter_context(flask_app.app_context())
        yield


def look_after(task: t.Any) -> None:
    """Give a task of a foreign class, which has no runs, the app context of its app."""
    _foreign.add(task)
    signals.task_prerun.connect(_open, weak=False, dispatch_uid="offload")
    signals.task_postrun.connect(_close, weak=False, dispatch_uid="offload")


_foreign: weakref.WeakSet[t.Any] = weakref.WeakSet()


def _open(task: t.Any, **_: t.Any) -> None:
    if task in _foreign:
        task.request.offload_context = context = context_of(task.app.flask_app)
        context.__enter__()


def _close(task: t.Any, **_: t.Any) -> None:
    if task in _foreign and hasattr(task.request, "offload_context"):
        task.request.offload_context.__exit__(None, None, None)
