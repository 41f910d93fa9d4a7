"""How jobs get into the line: record and message in one step, several in few round trips."""

from __future__ import annotations

import dataclasses
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

__all__ = ["Intake", "Publishing", "publishing"]

#: Most jobs of one round trip.
CHUNK = 500


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
        batch = _batch.get()
        if batch is not None:
            batch.append(accepted)
        else:
            (current.outcome,) = self._accept([accepted], current.deadline)
        return current.outcome

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
