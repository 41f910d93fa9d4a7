"""Delayed jobs on other brokers: they wait in the server of the records until they are due.

A message that waits in RabbitMQ, or in the memory of a worker, can be neither cancelled nor seen,
and a worker that dies takes it along. Here it waits with its record, and the workers publish it.
Each taking has a fence of its own, and ends by itself: of a worker that dies in between, another
one publishes the message once more, and whichever of the two comes first to a worker after that
is dropped, unless it is the last.
"""

from __future__ import annotations

import logging
import threading
import typing as t
from datetime import UTC, datetime, timedelta

from celery import bootsteps, states

from .._jobs import JobState
from .._store import Deadline, Delivery, NewJob, StoreUnavailable
from ..exceptions import EnqueueError
from . import envelope
from .broker import put
from .message import ETA, FENCE, Message

if t.TYPE_CHECKING:
    from .app import OffloadCelery

__all__ = ["Publisher", "enqueue", "failure"]

log = logging.getLogger("flask_offload")

#: Most seconds between two looks at what is due: how late one can be that was enqueued meanwhile.
LOOK = 1.0
#: Most messages that one worker takes at once, and the seconds after which another one may.
BATCH, CLAIM = 20, 15.0
#: Seconds of the claim that publishing may take; the rest is for what a publish takes itself.
ENOUGH = 8.0
#: Seconds until a message is tried again that the broker did not take. Longer than a look, so that
#: one which it never takes holds up no other.
AGAIN = 2.0
#: After so many in a row the broker is away.
FAILURES = 3


def enqueue(
    app: OffloadCelery,
    publish: t.Callable[..., t.Any],
    options: dict[str, t.Any],
    job: NewJob,
    state: JobState,
    deadline: Deadline,
) -> tuple[t.Any, tuple[str, str]]:
    """Write the record with its message, in one step; no broker is asked.

    :return: What Celery returns, and what the store did.
    """
    # Without its time: Celery would send it to where RabbitMQ delays it.
    left_out = {"countdown", "eta", "producer", "publisher", "connection"}
    options = {key: value for key, value in options.items() if key not in left_out}
    due = datetime.now(UTC) + timedelta(seconds=job.delay)
    headers = {**(options.pop("headers", None) or {}), ETA: due.isoformat()}
    headers.pop(FENCE, None)
    outcome = "", ""

    def accept(message: Message) -> None:
        nonlocal outcome
        text = envelope.encode(message, job.queue)
        while True:
            try:
                outcome = app.store.enqueue(job, state=state, envelope=text, deadline=deadline)
                return
            except StoreUnavailable as error:
                # A reply that was cut off is asked for again; the same id adds nothing.
                if not error.sent or not deadline.left():
                    unsure = " It may have been accepted all the same." if error.sent else ""
                    raise EnqueueError(f"The job was not accepted. {error}{unsure}") from error

    result = publish(producer=envelope.Capture(accept), retry=False, headers=headers, **options)
    return result, outcome


def failure(app: OffloadCelery, job_id: str, why: str) -> str:
    """What Celery stores for a task that no worker could run."""
    backend = app.backend
    result = backend.encode_result(RuntimeError(why), states.FAILURE)
    meta = backend._get_result_meta(
        result=result, state=states.FAILURE, traceback=None, request=None
    )
    return t.cast("str", backend.encode({**meta, "task_id": job_id}))


class Publisher(bootsteps.StartStopStep):  # type: ignore[misc]
    """Publishes what is due, in a thread of every worker."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: t.Any, **options: t.Any) -> None:
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def include_if(self, worker: t.Any) -> bool:
        return worker.app.engine is None

    def start(self, worker: t.Any) -> None:
        self._thread = threading.Thread(
            target=self._run, args=(worker.app,), name="offload-publisher", daemon=True
        )
        self._thread.start()

    def stop(self, worker: t.Any) -> None:
        # What it has taken and not published by then is another worker's, soon.
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(LOOK)

    terminate = stop

    def _run(self, app: OffloadCelery) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            try:
                pause = self._look(app)
            except StoreUnavailable as error:
                log.warning("Delayed jobs could not be looked for: %s", error)
                pause = LOOK
            except Exception:
                log.exception("Delayed jobs could not be published.")
                pause = LOOK

    def _look(self, app: OffloadCelery) -> float:
        """Publish what is due; the seconds until the next look."""
        wait, taken = app.store.due(BATCH, CLAIM)
        enough = Deadline.after(ENOUGH)
        failures = 0
        for delivery in taken:
            if self._stopping.is_set() or not enough.left() or failures == FAILURES:
                # Nobody shall have to wait for the claim to end.
                app.store.published(delivery.job_id, delivery.fence, again=LOOK)
            else:
                failures = 0 if _publish(app, delivery) else failures + 1
        return LOOK if wait is None or failures else min(LOOK, wait)


def _declared(app: OffloadCelery, name: str, exchange: str) -> list[t.Any]:
    """The queue of a message, as its enqueue would have declared it."""
    queues = app.amqp.queues
    if name not in queues and not (name and queues.create_missing):
        return []
    # Not added to those of the worker, which would consume from it.
    queue = queues[name] if name in queues else queues.new_missing(name)
    return [queue] if not exchange or queue.exchange.name == exchange else []


def _publish(app: OffloadCelery, delivery: Delivery) -> bool:
    """Publish one message, and only then note it; false if the broker did not take it."""
    job_id, fence = delivery.job_id, delivery.fence

    try:
        message = envelope.due(delivery)
        message["declare"] = _declared(app, delivery.queue, message["exchange"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = f"The message cannot be read: {error!r}"
        log.error("Job %s is dead: %s", job_id, why)
        app.store.bury(job_id, fence, why, "UnreadableMessage", failure(app, job_id, why))
        return True
    try:
        put(app, _send, message, app.deadline())
    except Exception as error:
        log.warning("Job %s is due, and the broker does not take it: %r", job_id, error)
        app.store.published(job_id, fence, again=AGAIN)
        return False
    app.store.published(job_id, fence)
    return True


def _send(*, producer: t.Any, **message: t.Any) -> None:
    producer.publish(**message)
