"""An enqueue: record first, then the message, both within one budget of time.

The record is written unconfirmed, and confirmed once the broker has the message. A worker runs
confirmed jobs only (one that is quicker than the confirmation waits for it). So an enqueue that
returned runs, and one that raised does not, whichever step failed.
"""

from __future__ import annotations

import functools
import logging
import math
import typing as t
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime

from celery.utils.saferepr import saferepr
from celery.utils.time import maybe_make_aware
from kombu.exceptions import OperationalError
from kombu.utils import json as kombu_json
from kombu.utils.uuid import uuid

from .._current import running_job
from .._jobs import JobState
from .._store import Deadline, NewJob, StoreUnavailable
from ..exceptions import EnqueueError, JobCancelled, NotSerializable, PayloadTooLarge
from . import delayed, describe
from .broker import put
from .intake import Publishing, publishing
from .message import FENCE
from .producer import LineProducer

if t.TYPE_CHECKING:
    from .app import OffloadCelery, Origin

__all__ = ["as_origin", "send"]

log = logging.getLogger("flask_offload")

#: How long after the budget an enqueue may still be confirmed: time for the reply to arrive.
SLACK = 1.0
#: Options that mean the same for the job when it is run again.
KEPT = ("queue", "priority", "routing_key", "exchange", "time_limit", "soft_time_limit", "shadow")

_origin: ContextVar[Origin | None] = ContextVar("offload_origin", default=None)


@contextmanager
def as_origin(origin: Origin) -> t.Iterator[None]:
    """Enqueue for the owner of another job."""
    token = _origin.set(origin)
    try:
        yield
    finally:
        _origin.reset(token)


def send(
    app: OffloadCelery,
    publish: t.Callable[..., t.Any],
    name: str,
    args: t.Any,
    kwargs: t.Any,
    options: dict[str, t.Any],
) -> t.Any:
    """Do what :meth:`celery.Celery.send_task` does, with a record."""
    deadline = app.deadline()
    options["task_id"] = options.get("task_id") or uuid()
    args, kwargs = list(args or ()), dict(kwargs or {})
    job, options = _describe(app, name, args, kwargs, options)
    publish = functools.partial(publish, name, args, kwargs)
    state = JobState.SCHEDULED if job.delay else JobState.QUEUED
    if job.retries:
        state = JobState.RETRYING
    if app.engine is not None:
        return _in_one_step(app, publish, options, Publishing(job, state, deadline))
    if job.delay:
        result, outcome = delayed.enqueue(app, publish, options, job, state, deadline)
        found = existing(app, outcome)
        return result if found is None else found
    try:
        outcome = app.store.enqueue(
            job, state=state, confirm_within=deadline.left() + SLACK, deadline=deadline
        )
    except StoreUnavailable as error:
        raise EnqueueError(f"The job was not accepted. {error}") from error
    if (found := existing(app, outcome)) is not None:
        return found
    try:
        result = put(app, publish, options, deadline)
        if not app.store.confirm(job.id, deadline):
            raise EnqueueError("The job was not accepted: the broker took it too late.")
    except EnqueueError as error:
        _refuse(app, job.id, error)
        raise
    except StoreUnavailable as error:
        _refuse(app, job.id, error)
        raise EnqueueError(f"The job was not accepted. {error}") from error
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        # A mistake in the call, such as a queue that is not configured; Celery's word for it.
        _refuse(app, job.id, error)
        raise
    except Exception as error:
        _refuse(app, job.id, error)
        raise EnqueueError(
            f"The job was not accepted: the broker is away or did not answer ({error}). "
            "See OFFLOAD_BROKER_URL."
        ) from error
    return result


def _in_one_step(
    app: OffloadCelery,
    publish: t.Callable[..., t.Any],
    options: dict[str, t.Any],
    current: Publishing,
) -> t.Any:
    """Publish by our transport, which writes the record together with the message."""
    token = publishing.set(current)
    try:
        queue = line_of(app, options)
        if queue:
            options = {key: v for key, v in options.items() if key not in ("producer", "publisher")}
            producer = LineProducer(app.engine, queue) if app.engine else None
            result = publish(producer=producer, retry=False, **options)
        else:
            result = put(app, publish, options, current.deadline)
    except StoreUnavailable as error:
        raise not_accepted(error) from error
    except Exception as error:
        if isinstance(error, EnqueueError) or not _away(error):
            raise
        raise EnqueueError(f"The job was not accepted: the server is away ({error}).") from error
    finally:
        publishing.reset(token)
    found = existing(app, current.outcome)
    return result if found is None else found


def not_accepted(error: StoreUnavailable) -> EnqueueError:
    """What an enqueue raises when the server is away."""
    unsure = " It may have been accepted all the same." if error.sent else ""
    return EnqueueError(f"The job was not accepted. {error}{unsure}")


def line_of(app: OffloadCelery, options: dict[str, t.Any]) -> str:
    """The queue of a message that goes to just one, and needs nothing else of kombu."""
    if app.conf.task_send_sent_event or options.get("exchange"):
        return ""
    queue = options.get("queue") or app.amqp.default_queue
    queue = app.amqp.queues[queue] if isinstance(queue, str) else queue
    kind = getattr(queue.exchange, "type", "direct")
    return str(queue.name) if kind == "direct" else ""


def existing(app: OffloadCelery, outcome: tuple[str, str]) -> t.Any:
    """The job that an enqueue found in the place of a new one, if it did."""
    what, job_id = outcome
    if what == "cancelled":
        # A retry of a job that somebody has cancelled meanwhile.
        raise JobCancelled
    return app.AsyncResult(job_id) if what in {"exists", "unique"} else None


def _away(error: Exception) -> bool:
    return isinstance(error, OperationalError | OSError)


def _refuse(app: OffloadCelery, job_id: str, error: Exception) -> None:
    # Best effort within a moment: a record that nobody confirms runs out by itself.
    with suppress(StoreUnavailable):
        app.store.refuse(job_id, str(error), Deadline.after(0.25))
    log.warning("Job %s was not accepted: %s", job_id, error)


def _describe(
    app: OffloadCelery,
    name: str,
    args: list[t.Any],
    kwargs: dict[str, t.Any],
    options: dict[str, t.Any],
) -> tuple[NewJob, dict[str, t.Any]]:
    """The record of an enqueue, and its options with what was settled here."""
    task = app._tasks.get(name)
    for option in ("queue", "priority"):
        default = getattr(task, f"default_{option}", None)
        if options.get(option) is None and default is not None:
            options[option] = default
    shown = describe.arguments(task, args, kwargs)
    kept = {key: options[key] for key in KEPT if isinstance(options.get(key), str | int | float)}
    (options.get("headers") or {}).pop(FENCE, None)
    payload = payload_of(app, name, args, kwargs, kept)
    if shown.masked:
        # Celery puts these two into the message, from where events and logs take them.
        options.setdefault("argsrepr", shown.args_repr)
        options.setdefault("kwargsrepr", shown.kwargs_repr)
    route = app.amqp.router.route(dict(options), name, args, kwargs, task)
    queue = route.get("queue")
    if queue is not None:
        options["queue"] = queue
    running = running_job()
    origin = origin_of(app, running)
    max_retries = getattr(task, "max_retries", None)
    return (
        NewJob(
            id=options["task_id"],
            task=name,
            title=describe.title(task, name, shown),
            queue=getattr(queue, "name", None) or str(queue or ""),
            owners=origin.owners,
            args=shown.args,
            kwargs=shown.kwargs,
            payload=payload,
            retries=options.get("retries") or 0,
            nesting=options.get("replaced_task_nesting") or 0,
            max_retries=max_retries,
            delay=_delay(app, options),
            priority=int(options.get("priority") or 0),
            unique=str(options.pop("unique", None) or ""),
            locale=origin.locale,
            request_id=origin.request_id,
            root_id=options.get("root_id") or (running.job.root_id if running else "") or "",
            parent_id=options.get("parent_id") or (running.id if running else "") or "",
        ),
        options,
    )


def origin_of(app: OffloadCelery, running: t.Any) -> Origin:
    """For whom a job is: as said, or as the job that enqueues it, or as the request."""
    origin = _origin.get()
    if origin is not None:
        return origin
    if running is None:
        return app.origin()
    from .app import Origin

    return Origin(running.job.owners, running.job.locale, running.job.request_id)


def reprs(app: OffloadCelery, args: t.Any, kwargs: t.Any, shown: describe.Shown) -> tuple[str, str]:
    """What Celery puts into the message for events and logs, without what is sensitive."""
    if shown.masked:
        return shown.args_repr, shown.kwargs_repr
    amqp, levels = app.amqp, app.conf.task_repr_maxlevels
    return (
        saferepr(args or (), amqp.argsrepr_maxsize, maxlevels=levels),
        saferepr(kwargs, amqp.kwargsrepr_maxsize, maxlevels=levels),
    )


def payload_of(
    app: OffloadCelery,
    name: str,
    args: list[t.Any],
    kwargs: dict[str, t.Any],
    kept: dict[str, t.Any],
) -> str:
    """The input of a job as JSON, to run it again with.

    :raises NotSerializable: It is not JSON.
    :raises PayloadTooLarge: It is larger than ``OFFLOAD_MAX_PAYLOAD``.
    """
    try:
        payload: str = kombu_json.dumps({"args": args, "kwargs": kwargs, "options": kept})
    except (TypeError, ValueError) as error:
        raise NotSerializable(
            f"An argument of {name} is not JSON: {error}. Pass an id, a path or plain data instead."
        ) from error
    size = len(payload.encode())
    limit = app.settings.max_payload
    if size > limit:
        raise PayloadTooLarge(
            f"The arguments of {name} have {size:,} bytes. OFFLOAD_MAX_PAYLOAD allows {limit:,}. "
            "Store large data elsewhere and pass its name."
        )
    return payload


def _delay(app: OffloadCelery, options: dict[str, t.Any]) -> float:
    """Seconds until the job is due. Delays travel as durations: the server's clock counts them."""
    countdown, eta = options.get("countdown"), options.get("eta")
    if countdown:
        return max(0.0, float(countdown))
    if not eta:
        return 0.0
    if isinstance(eta, str):
        eta = datetime.fromisoformat(eta)
    delay = (maybe_make_aware(eta, app.timezone) - datetime.now(UTC)).total_seconds()
    return max(0.0, delay) if math.isfinite(delay) else 0.0
