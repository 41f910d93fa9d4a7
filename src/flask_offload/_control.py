"""What web pages and commands may ask of jobs, and do to them."""

from __future__ import annotations

import typing as t

from ._jobs import JobRecord, JobState, LogLine, Waiting
from ._store import (
    Feed,
    FileStore,
    Health,
    Line,
    Overview,
    Role,
    Standing,
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
        self.line = Line(celery.store)

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

    def retry(self, job_id: str, new_id: str | None = None) -> Job:
        """Run a job again, with the same input, as a new job of the same owner.

        :param new_id: The id of the new job. Of two calls with the same, one job comes.
        :raises JobNotFound: There is no such job, or its input is not known.
        """
        record = self.store.get(job_id)
        payload = self.store.payload(job_id)
        if not payload:
            raise JobNotFound(job_id)
        return self._celery.enqueue_again(record, payload, new_id)

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

    def waiting(self, record: JobRecord) -> Waiting:
        """What a job that is not over waits for. What is the same for many is as of a second ago.

        Of one that runs, only whether its worker is lost.
        """
        return self.waiting_many([record])[0]

    def waiting_many(self, records: t.Sequence[JobRecord]) -> list[Waiting]:
        """What each of these jobs waits for; the places of all are asked for at once."""
        found = [self._waiting_for(record) for record in records]
        in_line = [r for r, known in zip(records, found, strict=True) if known is None]
        standings = iter(self.line.standings(in_line))
        return [
            self._standing_at(record, next(standings)) if known is None else known
            for record, known in zip(records, found, strict=True)
        ]

    def _waiting_for(self, record: JobRecord) -> Waiting | None:
        """As far as it does not depend on the place of the job; ``None`` for one in line."""
        if record.state.finished:
            return Waiting()
        workers = self.line.workers()
        if record.worker:
            # It runs there, or is about to.
            if not any(w.name == record.worker for w in workers):
                return Waiting("lost")
            if record.state is JobState.RUNNING:
                return Waiting()
            limit = str(self._task_option(record, "rate_limit", None) or "")
            return Waiting("rate", 1, limit=limit) if limit else Waiting(place=1)
        if not workers:
            return Waiting("none")
        if record.queue and not any(record.queue in w.queues for w in workers):
            return Waiting("queue")
        if record.state is not JobState.QUEUED or not record.queue:
            return Waiting()
        return None

    def _standing_at(self, record: JobRecord, standing: Standing) -> Waiting:
        if standing.parked:
            return Waiting("unknown")
        queue = self.line.queue(record.queue)
        place = standing.place
        if queue.paused:
            return Waiting("paused", place)
        return Waiting("", place, None if place is None else self.line.seconds(queue, place))

    # -- what the app knows of a task

    def repeatable(self, record: JobRecord) -> bool:
        """Whether the person waiting may run this job again."""
        over = record.state.finished
        return over and bool(self._task_option(record, "repeatable", False))

    def stops(self, record: JobRecord) -> t.Literal["unstarted", "at once", "soon", "report"]:
        """When a cancel of the job takes effect: it never starts, its process is stopped at once,
        its code is at its next line, or it is when it next reports."""
        if record.state is not JobState.RUNNING:
            return "unstarted"
        pool = next((w.pool for w in self.line.workers() if w.name == record.worker), "")
        if "prefork" in pool:
            return "at once"
        threads = "thread" in pool and self._task_option(record, "interrupt", True)
        return "soon" if threads else "report"

    def _task_option(self, record: JobRecord, name: str, default: object) -> t.Any:
        return getattr(self._celery.tasks.get(record.task), name, default)
