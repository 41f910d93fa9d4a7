"""What a worker cannot run of the messages of another broker: kept in the server of the records.

The broker's message is acknowledged once it is safe there. Until then it stays unacknowledged in
the hands of this worker, and goes back to the broker should the worker die.
"""

from __future__ import annotations

import hashlib
import logging
import typing as t
from dataclasses import replace
from functools import partial

from kombu.utils.encoding import safe_repr

from .._store import NewJob, StoreUnavailable
from . import envelope
from .delayed import failure
from .message import is_task, job_of
from .tracing import fence

__all__ = ["bury", "park"]

log = logging.getLogger("flask_offload")

#: Seconds after which a job is offered again that no worker knew.
PARK = 1.0
#: Seconds until a message is tried again when the server was away.
AGAIN = 1.0


def park(consumer: t.Any, message: t.Any) -> None:
    """Leave a job to a worker that knows its task, for as long as ``OFFLOAD_PARK_FOR`` allows."""
    _patiently(consumer, message, _park)


def bury(consumer: t.Any, message: t.Any, why: str) -> None:
    """Make a job dead that cannot be read, with all that there is of it."""
    _patiently(consumer, message, partial(_bury, why=why))


def _patiently(consumer: t.Any, message: t.Any, step: t.Callable[[t.Any, t.Any], None]) -> None:
    try:
        step(consumer, message)
    except StoreUnavailable as error:
        # Given back, it would be here again at once.
        log.warning("A message waits until the records can be reached: %s", error)
        consumer.timer.call_after(AGAIN, _patiently, (consumer, message, step))
        return
    message.ack_log_error(log, consumer.connection_errors)


def _park(consumer: t.Any, message: t.Any) -> None:
    app = consumer.app
    kept = envelope.received(message, _queue(consumer, message))
    try:
        if not is_task(kept):
            raise ValueError("it names no task")
        job = job_of(kept)
        token = fence(message.headers)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        _bury(consumer, message, why=f"The message cannot be read: {error!r}")
        return
    job = replace(job, queue=kept["properties"]["delivery_info"]["routing_key"])
    what = app.store.park(
        job,
        fence=token,
        envelope=envelope.encode(kept),
        delay=PARK,
        why=f"No worker knows the task {job.task}.",
        limit=app.settings.park_for,
    )
    if what == "over":
        why = f"No worker knew the task {job.task} for the time that OFFLOAD_PARK_FOR allows."
        log.error("Job %s is dead: %s", job.id, why)
        app.store.bury(job.id, token, why, "NotRegistered", failure(app, job.id, why))
    elif what == "drop":
        log.info("Dropping a leftover message of job %s.", job.id)


def _bury(consumer: t.Any, message: t.Any, *, why: str) -> None:
    headers = message.headers if isinstance(message.headers, dict) else {}
    raw = _text(message)
    name = headers.get("id")
    if not isinstance(name, str) or not name:
        # Of the same bytes there is one.
        name = "unreadable-" + hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    task = headers.get("task")
    job = NewJob(
        id=name,
        task=task if isinstance(task, str) else "",
        title="Unreadable message",
        queue=_queue(consumer, message) or str(message.delivery_info.get("routing_key") or ""),
    )
    log.error("Job %s is dead: %s", name, why)
    result = failure(consumer.app, name, why)
    consumer.app.store.entomb(job, raw, why, "UnreadableMessage", result)


def _text(message: t.Any) -> str:
    """All there is of a message, as text."""
    try:
        return envelope.encode(envelope.received(message))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return str(safe_repr((message.headers, message.properties, message.body)))


def _queue(consumer: t.Any, message: t.Any) -> str:
    """The queue that a message came from, where the broker tells: RabbitMQ does."""
    tag = (message.delivery_info or {}).get("consumer_tag")
    tags = getattr(consumer.task_consumer, "_active_tags", {})
    return next((str(queue) for queue, known in tags.items() if tag and known == tag), "")
