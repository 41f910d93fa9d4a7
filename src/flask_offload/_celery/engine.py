"""What one process has to do with the line of jobs: it puts some in, and holds some.

Holding is a lease on the server. A thread of its own renews it, so that a busy task cannot keep it
from doing so, and learns of leases that were lost. It runs in the process that received the jobs:
in a prefork pool that is not the one which runs them. In a pool of threads it shares the
interpreter with them: native code that keeps the GIL for longer than the lease makes its job run a
second time.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import os
import threading
import typing as t
import weakref
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime

from celery.utils.saferepr import saferepr
from kombu.compression import decompress
from kombu.serialization import loads

from .._jobs import JobState
from .._store import Accepted, Deadline, Delivery, NewJob, Store, StoreUnavailable
from ..exceptions import EnqueueError

if t.TYPE_CHECKING:
    from .._config import Settings

__all__ = ["ETA", "FENCE", "Engine", "Publishing", "publishing"]

log = logging.getLogger("flask_offload")

#: The header in which a delivery carries its fence to the process that runs it.
FENCE = "offload_fence"
#: The header that tells the task when it was due; see plain.py.
ETA = "offload_eta"
#: Seconds after which a job is offered again that no worker knew.
PARK = 1.0
#: What a message of protocol 1 says in its body, and one of protocol 2 does too.
_IN_BODY = frozenset("args kwargs callbacks errbacks chord".split())
#: Most jobs of one round trip.
CHUNK = 500
#: Seconds until the leases are renewed again when the server was away.
RETRY = 1.0

Message = dict[str, t.Any]


@dataclass
class Publishing:
    """An enqueue on its way through Celery and kombu, down to the transport.

    :param outcome: What the store said, and the id of the job there is.
    """

    job: NewJob
    state: JobState
    deadline: Deadline
    outcome: tuple[str, str] = ("", "")


#: The enqueue of this thread, so that record and message reach the server in one step.
publishing: ContextVar[Publishing | None] = ContextVar("offload_publishing", default=None)


#: What this thread enqueues to be sent together.
_batch: ContextVar[list[Accepted] | None] = ContextVar("offload_batch", default=None)


class Engine:
    """The jobs that this process holds. Thread-safe; a forked child holds nothing.

    :param settings: For the lease and the limits.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        #: Name of the worker on the records.
        self.worker = f"consumer/{os.getpid()}"
        #: Whether a Celery worker runs here, which outlives its connections.
        self.in_worker = False
        self.stopping = False
        self.on_lost: t.Callable[[str], None] | None = None
        self._reset()
        _instances.add(self)

    def __json__(self) -> str:
        """For the answer to ``inspect stats``, which shows the options of the transport."""
        return self.worker

    def _reset(self) -> None:
        self._held: dict[str, int] = {}
        self._done: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    # -- putting in

    def enqueue(self, queue: str, message: Message) -> None:
        """Put a message in line, with its record, in one step.

        :raises StoreUnavailable: It was not accepted; if ``sent``, perhaps it was.
        """
        is_task(message)
        headers = message["headers"]
        headers.pop(FENCE, None)
        headers.pop(ETA, None)
        current = publishing.get()
        if current is None or current.job.id != headers["id"]:
            # Not by way of our app: any Celery client, with this transport.
            job = _job_of(message)
            state = JobState.SCHEDULED if job.delay else JobState.QUEUED
            if job.retries:
                state = JobState.RETRYING
            deadline = Deadline.after(self.settings.publish_timeout)
            current = Publishing(job, state, deadline)
        job = dataclasses.replace(current.job, queue=queue, payload="")
        accepted = Accepted(job, current.state, json.dumps(message))
        batch = _batch.get()
        if batch is not None:
            batch.append(accepted)
        else:
            (current.outcome,) = self._accept([accepted], current.deadline)

    def _accept(self, jobs: list[Accepted], deadline: Deadline) -> list[tuple[str, str]]:
        while True:
            try:
                return self.store.enqueue_all(jobs, deadline)
            except StoreUnavailable as error:
                # A reply that was cut off is asked for again; the same id adds nothing.
                if not error.sent or not deadline.left():
                    raise

    @contextmanager
    def together(self) -> t.Iterator[None]:
        """Send what is enqueued inside in few round trips, at the end.

        :raises EnqueueError: Some were not accepted; the error tells how many were.
        """
        jobs: list[Accepted] = []
        token = _batch.set(jobs)
        try:
            yield
        finally:
            _batch.reset(token)
        for start in range(0, len(jobs), CHUNK):
            deadline = Deadline.after(self.settings.publish_timeout)
            try:
                self._accept(jobs[start : start + CHUNK], deadline)
            except StoreUnavailable as error:
                raise EnqueueError(
                    f"{start} of {len(jobs)} jobs were accepted, the others were not. {error}"
                ) from error

    # -- holding

    def fetch(self, queues: t.Sequence[str], count: int) -> list[tuple[Message, str]]:
        """Take up to ``count`` jobs, as messages with the name of their queue."""
        found = self.store.fetch(self.worker, queues, count)
        with self._lock:
            self._held.update((delivery.job_id, delivery.fence) for delivery in found)
        if found:
            self._start()
        messages = ((self._message(delivery), delivery.queue) for delivery in found)
        return [(message, queue) for message, queue in messages if message is not None]

    def _message(self, delivery: Delivery) -> Message | None:
        try:
            message = json.loads(delivery.envelope)
            headers, properties = message["headers"], message["properties"]
            headers[FENCE] = delivery.fence
            # It is due by the server's clock. With its time, a worker would wait for its own.
            if headers.get("eta"):
                headers[ETA] = headers["eta"]
            headers["eta"] = None
            properties["delivery_tag"] = _tag(delivery)
            properties["delivery_info"]["redelivered"] = delivery.fence > 1
            str(headers["task"]), str(headers["id"]), message["body"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self.bury(_tag(delivery), f"The message cannot be read: {error!r}")
            return None
        return t.cast("Message", message)

    def holds(self, tag: str) -> bool:
        """Whether a delivery tag is one of ours."""
        return tag.partition(":")[0].isdecimal() and ":" in tag

    def finished(self, tag: str) -> None:
        """Note that the result of a job is stored: its acknowledgement needs no round trip."""
        with self._lock:
            self._done.add(tag)

    def ack(self, tag: str) -> None:
        """End the lease."""
        job_id, fence = self._drop(tag)
        with self._lock:
            if tag in self._done:
                self._done.remove(tag)
                return
        self.store.ack(job_id, fence)

    def release(self, tag: str, *, forgive: bool = False) -> None:
        """Give a job back."""
        job_id, fence = self._drop(tag)
        self.store.release(job_id, fence, forgive=forgive)

    def release_all(self) -> None:
        """Give back all that is held, at the end of the process."""
        with self._lock:
            held, self._held = self._held, {}
        for job_id, fence in held.items():
            self.store.release(job_id, fence, forgive=True)

    def park(self, tag: str, task: str) -> bool:
        """Leave a job to a worker that knows its task; false if it was left for too long."""
        job_id, fence = self._drop(tag)
        why = f"No worker knows the task {task}."
        limit = self.settings.park_for
        return self.store.release(job_id, fence, delay=PARK, forgive=True, why=why, limit=limit)

    def bury(self, tag: str, error: str, error_type: str = "UnreadableMessage") -> None:
        """Make a job dead that cannot be read, with all that there is of it."""
        job_id, fence = self._drop(tag)
        log.error("Job %s is dead: %s", job_id, error)
        result = {"exc_type": "RuntimeError", "exc_message": [error], "exc_module": "builtins"}
        meta: dict[str, t.Any] = {
            "status": "FAILURE",
            "result": result,
            "traceback": None,
            "children": [],
        }
        meta |= {"task_id": job_id, "date_done": datetime.now(UTC).isoformat()}
        self.store.bury(job_id, fence, error, error_type, json.dumps(meta))

    def _drop(self, tag: str) -> tuple[str, int]:
        fence, _, job_id = tag.partition(":")
        with self._lock:
            if self._held.get(job_id) == int(fence):
                del self._held[job_id]
        return job_id, int(fence)

    # -- staying alive

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="offload-heartbeat", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        pause = self.settings.lease / 3
        while not self._stop.wait(pause):
            pause = self.settings.lease / 3
            try:
                self.heartbeat()
            except StoreUnavailable as error:
                log.warning("The leases could not be renewed: %s", error)
                pause = min(pause, RETRY)
            except Exception:
                log.exception("The leases could not be renewed.")

    def heartbeat(self) -> None:
        """Renew the leases, and stop what was lost."""
        with self._lock:
            held = dict(self._held)
        lost, over = self.store.extend(held)
        with self._lock:
            for job_id in over:
                # Its acknowledgement got lost with a connection; there is nothing to renew.
                if self._held.get(job_id) == held[job_id]:
                    del self._held[job_id]
                self._done.discard(f"{held[job_id]}:{job_id}")
        for job_id in lost:
            with self._lock:
                if self._held.get(job_id) != held[job_id]:
                    continue  # given back, or taken again, meanwhile
                del self._held[job_id]
            log.warning("The lease of job %s is lost; another worker runs it.", job_id)
            if self.on_lost is not None:
                self.on_lost(job_id)


_instances: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_instances):
        engine._reset()


os.register_at_fork(after_in_child=_after_fork)


def is_task(message: Message) -> bool:
    """Whether a message asks for a task.

    One of Celery's protocol 1 names its task in the body. It gets the headers of protocol 2, which
    is a form that every worker knows how to read.
    """
    headers = message.get("headers") or {}
    if headers.get("task") and headers.get("id"):
        return True
    try:
        body, properties = message["body"], message["properties"]
        if properties.get("body_encoding") == "base64":
            body = base64.b64decode(body)
        if compression := headers.get("compression"):
            body = decompress(body, compression)
        # Not of pickle, unless the program has enabled it.
        body = loads(body, message["content-type"], message["content-encoding"])
        if not body["task"] or not body["id"]:
            return False
        known = {key: value for key, value in body.items() if key not in _IN_BODY}
        known["argsrepr"], known["kwargsrepr"] = saferepr(body["args"]), saferepr(body["kwargs"])
    except Exception:
        return False  # What cannot be read names no task.
    message["headers"] = {**known, **headers}
    return True


def _tag(delivery: Delivery) -> str:
    return f"{delivery.fence}:{delivery.job_id}"


def _job_of(message: Message) -> NewJob:
    headers = message["headers"]
    name = str(headers["task"])
    words = name.rpartition(".")[2].replace("_", " ").strip()
    eta = headers.get("eta")
    delay = 0.0
    if eta:
        due = datetime.fromisoformat(str(eta))
        due = due if due.tzinfo else due.replace(tzinfo=UTC)
        delay = max(0.0, (due - datetime.now(UTC)).total_seconds())
    return NewJob(
        id=str(headers["id"]),
        task=name,
        title=words[:1].upper() + words[1:],
        args=json.dumps([headers.get("argsrepr") or ""]),
        retries=int(headers.get("retries") or 0),
        nesting=int(headers.get("replaced_task_nesting") or 0),
        priority=int(message.get("properties", {}).get("priority") or 0),
        delay=delay,
        root_id=headers.get("root_id") or "",
        parent_id=headers.get("parent_id") or "",
    )
