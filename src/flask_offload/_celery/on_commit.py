"""Jobs that are enqueued once a database transaction is committed, and never if it is not."""

from __future__ import annotations

import logging
import typing as t
from dataclasses import dataclass

from kombu.utils import json as kombu_json
from kombu.utils.uuid import uuid

from .._current import running_job
from ..exceptions import ConfigError, EnqueueError, LostAfterCommit
from . import describe, publish

if t.TYPE_CHECKING:
    from .._transactions import AnySession
    from .app import OffloadCelery, Origin
    from .job import Job
    from .task import OffloadTask

__all__ = ["enqueue"]

log = logging.getLogger("flask_offload")


@dataclass(frozen=True, slots=True)
class Pending:
    """An enqueue that waits for a commit.

    :param job: What the caller has of it; its id is the job's.
    :param origin: Of the request or job that asked for it. At the commit there may be none.
    """

    task: OffloadTask
    job: Job
    args: list[t.Any]
    kwargs: dict[str, t.Any]
    options: dict[str, t.Any]
    origin: Origin

    def publish(self) -> None:
        with publish.as_origin(self.origin):
            found = self.task.apply_async(
                self.args, self.kwargs, **self.options, task_id=self.job.id
            )
        # Another one where ``unique`` has found one.
        self.job.id = found.id

    def tell_lost(self, error: BaseException) -> None:
        shown = describe.arguments(self.task, self.args, self.kwargs)
        log.error(
            "The transaction was committed, but its job %s was not enqueued: %s, args %s, "
            "kwargs %s. %s",
            self.job.id,
            self.task.name,
            shown.args,
            shown.kwargs,
            error,
        )


def enqueue(
    task: OffloadTask,
    args: tuple[t.Any, ...],
    kwargs: dict[str, t.Any],
    options: dict[str, t.Any],
    session: AnySession | None,
) -> Job:
    """Enqueue a task once the current transaction of a session is committed.

    What can be wrong about the arguments is said here, while the caller can still roll back; and
    they are kept as they are now.

    :param session: Unset, Flask-SQLAlchemy's ``db.session``.
    """
    try:
        from .._transactions import hold
    except ImportError as error:
        raise ConfigError(
            "delay_on_commit() needs Flask-SQLAlchemy. Install it: "
            'pip install "Flask-Offload[sqlalchemy]"'
        ) from error
    app: OffloadCelery = task._get_app()
    if session is None:
        session = _session(app)
    if task.typing:
        task.__header__(*args, **kwargs)
    sent = kombu_json.loads(publish.payload_of(app, task.name, list(args), kwargs, {}))
    job: Job = task.AsyncResult(uuid())
    origin = publish.origin_of(app, running_job())
    pending = Pending(task, job, sent["args"], sent["kwargs"], options, origin)
    hold(session, pending, _publish)
    return job


def _session(app: OffloadCelery) -> AnySession:
    extension = app.flask_app.extensions.get("sqlalchemy")
    if extension is None:
        raise ConfigError(
            "delay_on_commit() waits for Flask-SQLAlchemy's db.session, which this app does not "
            "have. Call db.init_app(app), or name a session: "
            "task.options(session=session).delay_on_commit(...)."
        )
    return t.cast("AnySession", extension.session)


def _publish(waiting: list[Pending]) -> None:
    """Enqueue what waited, in its order, after the commit.

    :raises LostAfterCommit: Some were not accepted.
    """
    lost: list[Pending] = []
    cause: BaseException | None = None
    for number, pending in enumerate(waiting):
        try:
            pending.publish()
        except BaseException as error:
            cause = error
            if isinstance(error, Exception) and not isinstance(error, EnqueueError):
                lost.append(pending)
                continue
            # The server is away, or this process is to end: one budget of time for all.
            lost += waiting[number:]
            break
    if cause is None:
        return
    for pending in lost:
        pending.tell_lost(cause)
    if not isinstance(cause, Exception):
        raise cause
    raise LostAfterCommit(
        f"The transaction was committed, but {len(lost)} of the {len(waiting)} jobs that waited "
        f"for it were not enqueued. {cause}",
        job_ids=[pending.job.id for pending in lost],
    ) from cause
