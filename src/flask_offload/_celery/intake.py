"""How jobs get into the line: record and message in one step, several in few round trips."""

from __future__ import annotations

import dataclasses
import time
import typing as t
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from .._jobs import JobState
from .._store import Accepted, Deadline, NewJob, Store, StoreUnavailable
from ..exceptions import EnqueueError
from .message import ETA, FENCE, Message, is_task, job_of
from .stored import pack

if t.TYPE_CHECKING:
    from .._config import Settings

T = t.TypeVar("T")
R = t.TypeVar("R")

__all__ = ["Intake", "Publishing", "publishing"]

#: Most jobs of one round trip, and the size of their messages from which on there are no more.
CHUNK, CHUNK_SIZE = 200, 1_000_000
#: Seconds until a reply that was cut off is asked for again.
AGAIN = 0.02


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


class Intake:
    """The way in, of one process.

    :param settings: For the publish budget.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings

    def enqueue(self, queue: str, message: Message) -> tuple[str, str]:
        """Put a message in line, with its record, in one step.

        :return: What the store said, and the id of the job there is; empty for one of several
            that are sent together.
        :raises StoreUnavailable: It was not accepted; if ``sent``, perhaps it was.
        """
        is_task(message)
        headers = message["headers"]
        headers.pop(FENCE, None)
        headers.pop(ETA, None)
        current = publishing.get()
        if current is None or current.job.id != headers["id"]:
            # Not by way of our app: any Celery client, with this transport.
            job = job_of(message)
            state = JobState.SCHEDULED if job.delay else JobState.QUEUED
            if job.retries:
                state = JobState.RETRYING
            deadline = Deadline.after(self.settings.publish_timeout)
            current = Publishing(job, state, deadline)
        job = dataclasses.replace(current.job, queue=queue, payload="")
        accepted = Accepted.of(job, current.state, pack(message, queue))
        current.outcome = self.put(accepted, current.deadline)
        return current.outcome

    def put(self, job: Accepted, deadline: Deadline) -> tuple[str, str]:
        """Put a job in line, or with those that are sent together.

        :return: As :meth:`.Entry.enqueue`; nothing yet for one that is to be sent.
        :raises StoreUnavailable: It was not accepted; if ``sent``, perhaps it was.
        """
        batch = _batch.get()
        if batch is not None:
            batch.append(job)
            return "", ""
        return _insist(self.store.enqueue_one, job, deadline)

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
        start = 0
        for chunk in _chunks(jobs):
            deadline = Deadline.after(self.settings.publish_timeout)
            try:
                _insist(self.store.enqueue_all, chunk, deadline)
            except StoreUnavailable as error:
                raise EnqueueError(
                    f"{start} of {len(jobs)} jobs were accepted, the others were not. {error}"
                ) from error
            start += len(chunk)


def _insist(accept: t.Callable[[T, Deadline], R], what: T, deadline: Deadline) -> R:
    """Have it accepted, and ask again for a reply that was cut off: the same id adds nothing."""
    sent = False
    while True:
        try:
            return accept(what, deadline)
        except StoreUnavailable as error:
            # Who has sent it once never knows again that it was not accepted, whatever comes then.
            sent = sent or error.sent
            if not sent or deadline.left() < AGAIN:
                if sent and not error.sent:
                    raise StoreUnavailable(str(error), sent=True) from error
                raise
            time.sleep(AGAIN)


def _chunks(jobs: t.Sequence[Accepted]) -> t.Iterator[list[Accepted]]:
    """What goes into one call each: the server does nothing else meanwhile."""
    chunk: list[Accepted] = []
    size = 0
    for job in jobs:
        chunk.append(job)
        size += job.size
        if len(chunk) == CHUNK or size > CHUNK_SIZE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
