"""What web pages and commands may ask of jobs, and do to them."""

from __future__ import annotations

import typing as t

from ._jobs import JobRecord, JobState, LogLine
from ._store import (
    Feed,
    FileStore,
    Health,
    Overview,
    Role,
    Statistics,
    Store,
    WorkerInfo,
    examine,
    overview,
    statistics,
)
from .exceptions import JobNotFound

if t.TYPE_CHECKING:
    from ._celery import Job, OffloadCelery

__all__ = ["Control"]


class Control:
    """The verbs. None of them asks who may; that is the caller's part."""

    def __init__(self, celery: OffloadCelery) -> None:
        self._celery = celery

    @property
    def store(self) -> Store:
        return self._celery.store

    @property
    def files(self) -> FileStore:
        return self._celery.files

    @property
    def feed(self) -> Feed:
        return self._celery.feed

    def get(self, job_id: str) -> JobRecord:
        """The record of a job, with its result.

        :raises JobNotFound: There is no such job.
        """
        return self.store.get(job_id)

    def logs(self, job_id: str, after: int = 0) -> list[LogLine]:
        """The log lines of a job with a number above ``after``."""
        return self.store.logs(job_id, after)

    def newest(self, *, owner: str | None = None, limit: int = 50) -> list[JobRecord]:
        """The newest jobs, of one owner or of all, without their results."""
        return self.store.newest(owner=owner, limit=limit)

    def open_file(self, record: JobRecord, name: str) -> tuple[dict[str, t.Any], t.BinaryIO]:
        """A file of a job: what is known of it, and its content.

        :raises FileNotFoundError: The job has no such file.
        """
        for file in record.files:
            if file["name"] == name:
                return file, self.files.open(record.id, name)
        raise FileNotFoundError(name)

    def cancel(self, job_id: str, by: str = "") -> JobState:
        """Cancel a job that waits, or have it stopped where it runs.

        A job that runs stops at its next call on ``current_job``, or before: in a prefork worker
        at once, in a worker with threads at the next line of its own code.

        :param by: Who did it, for the record.
        :return: The state it was in; a job that was over stays as it is.
        :raises JobNotFound: There is no such job.
        """
        state, running = self.store.cancel(job_id, by, self._celery.revoked_result(job_id))
        if running:
            self._celery.stop_running(job_id)
        return state

    def retry(self, job_id: str) -> Job:
        """Run a job again, with the same input, as a new job of the same owner.

        :raises JobNotFound: There is no such job, or its input is not known.
        """
        record = self.store.get(job_id)
        payload = self.store.payload(job_id)
        if not payload:
            raise JobNotFound(job_id)
        return self._celery.enqueue_again(record, payload)

    def pause(self, queue: str) -> None:
        """Hand out no more jobs of a queue until :meth:`resume`; what runs goes on."""
        self.store.pause(queue)

    def resume(self, queue: str) -> None:
        """Hand out the jobs of a queue again."""
        self.store.resume(queue)

    def workers(self) -> t.Sequence[WorkerInfo]:
        """The workers that are alive."""
        return self.store.workers()

    def health(self, role: Role = "worker") -> Health:
        """What the server says about itself, and what to mend. Raises nothing.

        :param role: Whose rights on it are looked at.
        """
        allow = self._celery.settings.allow_eviction
        return examine(self.store, role=role, allow_eviction=allow)

    def overview(self) -> Overview:
        """All queues: how many jobs wait in each, and for how long."""
        return overview(self.store, self._celery.amqp.queues)

    def statistics(self, minutes: int = 60) -> Statistics:
        """What happened in all, and in each of the last minutes."""
        return statistics(self.store, minutes)

    def worker_missing(self, record: JobRecord) -> str:
        """Why a job that is not over does not move, as far as workers are the reason.

        :return: ``lost`` (its worker stopped answering in the middle), ``none`` (no worker runs),
            ``queue`` (none listens to its queue), or empty.
        """
        if record.state.finished:
            return ""
        workers = self.workers()
        if record.worker:
            # It runs there, or is about to.
            return "" if any(w.name == record.worker for w in workers) else "lost"
        if not workers:
            return "none"
        return "" if any(record.queue in w.queues for w in workers) or not record.queue else "queue"
