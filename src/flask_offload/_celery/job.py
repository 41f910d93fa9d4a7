"""``Job``: Celery's ``AsyncResult`` with a record."""

from __future__ import annotations

import typing as t
from functools import cached_property

from celery.result import AsyncResult, promise

from .._jobs import JobRecord, JobState, LogLine, Progress

if t.TYPE_CHECKING:
    from .app import OffloadCelery

__all__ = ["Job", "Verbs"]


class Verbs(t.Protocol):
    """What :class:`Job` lets the layers above do for it."""

    def cancel(self, job_id: str, by: str = "") -> JobState: ...
    def retry(self, job_id: str) -> Job: ...
    def url(self, job_id: str) -> str: ...


class Job(AsyncResult):  # type: ignore[misc]
    """A job that was enqueued.

    All that :class:`celery.result.AsyncResult` has works: :meth:`get`, :attr:`state`,
    :meth:`ready`, ... The record adds the rest; reading it raises :exc:`.JobNotFound` once it has
    expired, while :attr:`state` goes on saying ``PENDING``, as Celery's contract has it.
    """

    app: OffloadCelery
    #: Whether the backend was asked to look out for the result.
    awaited = True
    #: As Celery has it for one that is alone, and not known to be over.
    parent = _cache = None

    @classmethod
    def accepted(cls, job_id: str, app: OffloadCelery, backend: t.Any, *, ignored: bool) -> Job:
        """The job of an enqueue; most are never waited for, and need not be made ready for it."""
        job: Job = cls.__new__(cls)
        job.app, job.id, job.backend = app, job_id, backend
        job._ignored, job.awaited = ignored, False
        return job

    def __del__(self) -> None:
        if self.awaited:
            super().__del__()

    @cached_property
    def on_ready(self) -> t.Any:
        return promise(self._on_fulfilled, weak=True)

    @property
    def record(self) -> JobRecord:
        """All that is known of the job, read from the server at each access.

        :raises JobNotFound: There is no such job, or its record has expired.
        """
        return self.app.store.get(self.id)

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self.record.progress

    @property
    def position(self) -> int | None:
        """Place in line, from 1; ``None`` where it does not wait, or another broker keeps the
        line."""
        return self.app.store.position(self.id)

    @property
    def owner(self) -> tuple[str, ...]:
        """Who may see it."""
        return self.record.owners

    @property
    def url(self) -> str:
        """The address of its live page."""
        return self.app.verbs.url(self.id)

    def logs(self, after: int = 0) -> list[LogLine]:
        """The lines that it wrote, from number ``after`` + 1 on."""
        return self.app.store.logs(self.id, after)

    def cancel(self) -> JobState:
        """Cancel it; see :meth:`.Control.cancel`. Returns the state that it was in."""
        return self.app.verbs.cancel(self.id)

    def retry(self) -> Job:
        """Run it again with the same input, as a new job."""
        return self.app.verbs.retry(self.id)
