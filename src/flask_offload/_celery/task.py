"""The base class of all tasks of an app."""

from __future__ import annotations

import typing as t
from contextlib import nullcontext
from datetime import timedelta
from functools import cache

from celery.app.task import Task
from celery.exceptions import Ignore, Reject

from ..exceptions import EnqueueError, JobCancelled
from . import interrupt as interrupts
from . import on_commit, template, tracing

if t.TYPE_CHECKING:
    from .._transactions import AnySession
    from .job import Job

__all__ = ["Enqueue", "OffloadTask", "limits"]


class OffloadTask(Task):  # type: ignore[misc]
    """A Celery task whose runs are jobs.

    :param title: What the job is called on its page; ``{names}`` of arguments are filled in.
    :param sensitive: Names of arguments that never reach the display of the record, its log or
        Celery's events. They are still in the message.
    :param interrupt: Whether a cancelled job that runs in a thread may be stopped at any line of
        its code; else it is at its calls on ``current_job``.
    :param repeatable: Whether the person waiting may run a job that is over again, with the same
        input, from its page.
    """

    abstract = True
    Request = "flask_offload._celery.request:OffloadRequest"
    title: str | None = None
    sensitive: tuple[str, ...] = ()
    interrupt: bool = True
    repeatable: bool = False
    #: How the task is enqueued; Celery's own attributes for it are on their way out.
    default_queue: str | None = None
    default_priority: int | None = None

    @property
    def __trace__(self) -> tracing.Tracer | None:
        """Celery's tracer of this task, which a worker sets."""
        return t.cast("tracing.Tracer | None", vars(self).get("_tracer"))

    @__trace__.setter
    def __trace__(self, tracer: tracing.Tracer | None) -> None:
        self._tracer = None if tracer is None else tracing.around(self, tracer)

    def apply(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        """Run the task here and now; see :meth:`celery.app.task.Task.apply`."""
        with tracing.context_of(self.app.flask_app):
            return super().apply(*args, **kwargs)

    def __call__(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        run = tracing.claim(self)
        if run is None:
            # Called as a plain function, also from inside a task: no second context, no record.
            return super().__call__(*args, **kwargs)
        try:
            with run:
                if not self.interrupt:
                    return self._body()(*args, **kwargs)
                key = run.key
                return interrupts.run(key, type(self).__module__, self._body(), args, kwargs)
        except JobCancelled as error:
            # One whose lease is lost is somebody else's now, and not cancelled.
            if not run.lost and not isinstance(error, interrupts.LeaseLost):
                self.backend.mark_as_revoked(self.request.id, "cancelled", request=self.request)
            raise Ignore from None

    def _body(self) -> t.Callable[..., t.Any]:
        owner = _owner_of_call(type(self))  # type: ignore[arg-type]
        if owner is Task:
            return t.cast("t.Callable[..., t.Any]", self.run)
        return t.cast("t.Callable[..., t.Any]", vars(owner)["__call__"].__get__(self))

    def apply_async(
        self, args: t.Any = None, kwargs: t.Any = None, *more: t.Any, **options: t.Any
    ) -> t.Any:
        """Enqueue the task; see :meth:`celery.app.task.Task.apply_async`."""
        job = None if more else template.enqueue(self, args, kwargs, options)
        return super().apply_async(args, kwargs, *more, **options) if job is None else job

    def retry(self, *args: t.Any, **options: t.Any) -> t.Any:
        run = tracing.current_run(self.request.id)
        if run is not None:
            # The attempt counts on the record; the next one starts a new page.
            self.app.store.patiently(run.tell)
        try:
            return super().retry(*args, **options)
        except Reject as error:
            # Celery drops the message when the retry cannot be published. The one in hand goes
            # back to the broker instead, so that the job is not lost.
            if isinstance(error.reason, EnqueueError):
                raise Reject(error.reason, requeue=True) from error
            raise

    def delay_on_commit(self, *args: t.Any, **kwargs: t.Any) -> Job:
        """Enqueue the task once the current transaction of ``db.session`` is committed, and never
        if it is rolled back; see :meth:`.OffloadedTask.delay_on_commit`."""
        return on_commit.enqueue(self, args, kwargs, {}, None)

    def enqueue_many(self, calls: t.Iterable[t.Sequence[t.Any]]) -> list[t.Any]:
        """Enqueue the task once for each sequence of arguments, in few round trips.

        :return: The jobs, in the order of ``calls``.
        :raises EnqueueError: Some were not accepted; the error tells how many were.
        """
        engine = self.app.engine
        with nullcontext() if engine is None else engine.together():
            return [self.apply_async(tuple(args)) for args in calls]

    def options(
        self,
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: float | timedelta | None = None,
        timeout: float | None = None,
        unique: str | None = None,
        session: AnySession | None = None,
    ) -> Enqueue:
        """Options for the next enqueue: ``task.options(queue="slow").delay(...)``.

        :param queue: Name of the queue.
        :param priority: 0 to 9; what it means is the broker's matter.
        :param delay: Seconds, or a duration, until the job is due.
        :param timeout: Seconds after which the job is stopped; see :func:`limits`.
        :param unique: While a job of this app with the same text here is not over, that one is
            returned, and no other is enqueued.
        :param session: Of SQLAlchemy; the one whose commit ``delay_on_commit`` waits for.
        """
        given = {"queue": queue, "priority": priority, "unique": unique, **limits(timeout)}
        options = {key: value for key, value in given.items() if value is not None}
        if delay is not None:
            seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
            options["countdown"] = max(0.0, seconds)
        return Enqueue(self, options, session)


@cache
def _owner_of_call(task: type[OffloadTask]) -> type:
    # A __call__ of the user's own base class is part of the task, as it is in Celery; Celery's
    # default one would push a second request on top of the tracer's.
    after_ours = task.__mro__[task.__mro__.index(OffloadTask) + 1 :]
    return next(cls for cls in after_ours if "__call__" in vars(cls))


class Enqueue:
    """A task together with options for its enqueue."""

    def __init__(
        self, task: OffloadTask, options: dict[str, t.Any], session: AnySession | None
    ) -> None:
        self._task = task
        self._options = options
        self._session = session

    def delay(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        """Enqueue the task with these arguments; see :meth:`celery.app.task.Task.delay`."""
        if self._session is not None:
            raise TypeError("options(session=...) goes with delay_on_commit(), not with delay().")
        return self._task.apply_async(args, kwargs, **self._options)

    def delay_on_commit(self, *args: t.Any, **kwargs: t.Any) -> Job:
        """Enqueue the task once a transaction is committed; see
        :meth:`.OffloadedTask.delay_on_commit`."""
        return on_commit.enqueue(self._task, args, kwargs, self._options, self._session)


def limits(timeout: float | None) -> dict[str, float]:
    """Celery's time limits for one ``timeout`` in seconds.

    The task is told at the timeout (:exc:`~celery.exceptions.SoftTimeLimitExceeded`), so that it
    can tidy up, and is stopped five seconds later. Celery's prefork pool enforces both.
    """
    return {} if timeout is None else {"soft_time_limit": timeout, "time_limit": timeout + 5}
