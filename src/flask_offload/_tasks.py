"""``@offload.task``: Celery's task decorator, typed, and with fewer words for the usual wishes."""

from __future__ import annotations

import typing as t
from datetime import timedelta

from ._celery import Job, limits
from .exceptions import ConfigError, UserError

if t.TYPE_CHECKING:
    from celery.canvas import Signature

    from ._transactions import AnySession

__all__ = ["Enqueuer", "OffloadedTask", "task_options"]

P = t.ParamSpec("P")
R = t.TypeVar("R", covariant=True)


class Enqueuer(t.Protocol[P]):
    """A task with options for its enqueue."""

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Enqueue it."""
        ...

    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Enqueue it once a transaction is committed; see :meth:`OffloadedTask.delay_on_commit`."""
        ...


class OffloadedTask(t.Protocol[P, R]):
    """What a type checker sees of a decorated function. It is a Celery task, and has all that one
    has (:class:`celery.app.task.Task`)."""

    name: str
    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now."""
        ...

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Enqueue the function.

        :raises EnqueueError: The job was not accepted, and will not run.
        :raises TypeError: The arguments do not fit the function, or are not JSON.
        :raises PayloadTooLarge: They are larger than ``OFFLOAD_MAX_PAYLOAD``.
        """
        ...

    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Enqueue the function once the current transaction of Flask-SQLAlchemy's ``db.session``
        is committed, and never if it, or the savepoint that this is called in, is rolled back.

        Where no transaction is open, one begins, as by any use of the session.

        The id of the job is known at once, its record and page are there after the commit, which
        raises :exc:`.LostAfterCommit` if the job was not accepted then.

        :raises TypeError: The arguments do not fit the function, or are not JSON.
        :raises PayloadTooLarge: They are larger than ``OFFLOAD_MAX_PAYLOAD``.
        :raises ConfigError: There is no Flask-SQLAlchemy.
        """
        ...

    def enqueue_many(self, calls: t.Iterable[t.Sequence[t.Any]]) -> list[Job]:
        """Enqueue the function once for each sequence of positional arguments, in few round trips.

        :raises EnqueueError: Some were not accepted; the error tells how many were.
        """
        ...

    def options(
        self,
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: float | timedelta | None = None,
        timeout: float | None = None,
        unique: str | None = None,
        session: AnySession | None = None,
    ) -> Enqueuer[P]:
        """Options for the next enqueue."""
        ...

    def apply_async(self, args: t.Any = None, kwargs: t.Any = None, **options: t.Any) -> Job:
        """Enqueue with Celery's own options; see :meth:`celery.app.task.Task.apply_async`."""
        ...

    def s(self, *args: t.Any, **kwargs: t.Any) -> Signature[t.Any]:
        """A signature, for Celery's canvas."""
        ...

    def si(self, *args: t.Any, **kwargs: t.Any) -> Signature[t.Any]:
        """An immutable signature, for Celery's canvas."""
        ...


def task_options(
    *,
    title: str | None = None,
    sensitive: t.Iterable[str] = (),
    queue: str | None = None,
    priority: int | None = None,
    timeout: float | None = None,
    retries: int | None = None,
    repeatable: bool = False,
    **celery: t.Any,
) -> dict[str, t.Any]:
    """Celery's options for those of ``@offload.task``.

    :param retries: How often the job is tried again after an error, with growing pauses; not
        after a :exc:`.UserError`, which says that trying again is of no use.
    :param repeatable: Whether the person waiting may run a job that is over again, with the same
        input, from its page.
    """
    if isinstance(sensitive, str):
        raise ConfigError(f"sensitive={sensitive!r} must be a list of names: [{sensitive!r}].")
    given = {"title": title, "default_queue": queue, "default_priority": priority}
    options = {**celery, **{key: value for key, value in given.items() if value is not None}}
    options["sensitive"] = tuple(sensitive)
    options["repeatable"] = repeatable
    options.update(limits(timeout))
    if retries is not None:
        options["max_retries"] = retries
        if retries:
            options.setdefault("autoretry_for", (Exception,))
            options.setdefault("dont_autoretry_for", (UserError,))
            options.setdefault("retry_backoff", True)
            options.setdefault("retry_jitter", True)
    return options
