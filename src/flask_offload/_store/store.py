"""The record of every job: one manager for all transitions and queries."""

from __future__ import annotations

import json
import time
import typing as t
from dataclasses import dataclass, field

import redis
from redis.exceptions import NoPermissionError, OutOfMemoryError, ReadOnlyError

from .._jobs import JobRecord, JobState, LogLine, Progress
from ..exceptions import JobNotFound, ServerError
from . import scripts
from .connection import Connections, Deadline, Link, StoreUnavailable
from .keys import Keys

if t.TYPE_CHECKING:
    from .._config import Settings

__all__ = ["NewJob", "Started", "Store", "WorkerInfo"]

#: The fields that make a :class:`JobRecord`; not the payload, which may be large.
FIELDS = [
    "task",
    "state",
    "title",
    "queue",
    "owners",
    "args",
    "kwargs",
    "created_at",
    "due_at",
    "first_started_at",
    "started_at",
    "finished_at",
    "retries",
    "max_retries",
    "deliveries",
    "starts",
    "worker",
    "done",
    "total",
    "message",
    "error",
    "error_type",
    "user_error",
    "cancel_requested",
    "cancelled_by",
    "files",
    "log_lines",
    "log_dropped",
    "locale",
    "request_id",
    "root_id",
    "parent_id",
    "event_id",
    "unconfirmed_until",
]
LINE_LIMIT = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What an enqueue writes down before anything is published.

    :param args: Arguments for display, as JSON.
    :param payload: The whole body, as JSON, for running the job again.
    :param delay: Seconds until it is due.
    :param retries, nesting: Celery's counts of retries and replacements: together the epoch of
        the attempt. An older one cannot overwrite a newer one.
    """

    id: str
    task: str
    title: str = ""
    queue: str = ""
    owners: tuple[str, ...] = ()
    args: str = "[]"
    kwargs: str = "{}"
    payload: str = ""
    retries: int = 0
    nesting: int = 0
    max_retries: int | None = None
    delay: float = 0
    locale: str = ""
    request_id: str = ""
    root_id: str = ""
    parent_id: str = ""

    def fields(self) -> str:
        """The fields of the hash, as JSON."""
        return json.dumps(
            {
                "task": self.task,
                "title": self.title,
                "queue": self.queue,
                "owners": json.dumps(self.owners),
                "args": self.args,
                "kwargs": self.kwargs,
                "payload": self.payload,
                "max_retries": "" if self.max_retries is None else str(self.max_retries),
                "locale": self.locale,
                "request_id": self.request_id,
                "root_id": self.root_id,
                "parent_id": self.parent_id,
            }
        )


@dataclass(frozen=True, slots=True)
class Started:
    """The answer to a worker that wants to start a job.

    :param verdict: ``run``, ``wait`` (the enqueue is not confirmed yet), ``cancelled``, ``dead``
        (started too often) or ``drop`` (a leftover message).
    :param why: For ``drop``, why; for ``wait``, the seconds after which it will be settled.
    """

    verdict: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker that is alive.

    :param queues: Names of the queues that it listens to.
    """

    name: str
    pid: int = 0
    queues: tuple[str, ...] = ()
    pool: str = ""
    concurrency: int = 0
    started_at: float = 0
    host: str = ""
    tasks: tuple[str, ...] = field(default=(), repr=False)


class Store:
    """The records of one namespace.

    :param prepare: Called before each use, with the seconds that it may take; starts the embedded
        server unless it runs.
    :param recover: Called after the server was away, likewise; restarts the embedded server.
    :raises StoreUnavailable: Every method does, when the server is away or refuses.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        *,
        prepare: t.Callable[[float], None] | None = None,
        recover: t.Callable[[float], None] | None = None,
    ) -> None:
        self.keys = Keys(settings.namespace)
        self.connections = Connections(url)
        #: Seconds that one call may take where the caller gives no deadline: what a request may
        #: wait for an enqueue is what it may wait for a list.
        self.timeout = settings.publish_timeout
        self._retention = json.dumps(
            {state: settings.retain(state) for state in (*settings.retention, "dead")}
        )
        self._prepare = prepare
        self._recover = recover
        self._max_log_lines = settings.max_log_lines

    # -- how a call is made

    def _call(self, use: t.Callable[[Link], t.Any], deadline: Deadline | None = None) -> t.Any:
        deadline = deadline or Deadline.after(self.timeout)
        _embedded(self._prepare, deadline)
        try:
            with self.connections.take(deadline) as link:
                return use(link)
        except redis.ResponseError as error:
            raise StoreUnavailable(_refusal(error), sent=False) from error
        except StoreUnavailable as error:
            if self._recover is None or error.sent:
                raise
            # The embedded server is ours to bring back; nothing was sent, so this is safe.
            _embedded(self._recover, deadline)
            with self.connections.take(deadline) as link:
                return use(link)

    def _script(
        self,
        name: str,
        job_id: str,
        *args: t.Any,
        keys: t.Sequence[str] = (),
        deadline: Deadline | None = None,
    ) -> t.Any:
        keys = [self.keys.job(job_id), *keys]
        args = (self.keys.prefix, job_id, self._retention, *args)
        return self._call(lambda link: scripts.run(link, name, keys, args), deadline)

    def patiently(self, call: t.Callable[[], t.Any], limit: float) -> t.Any:
        """Repeat ``call`` while the server is away, for at most ``limit`` seconds. For workers."""
        deadline = Deadline.after(limit)
        pause = 0.05
        while True:
            try:
                return call()
            except StoreUnavailable:
                if deadline.left() < pause:
                    raise
                time.sleep(pause)
                pause = min(2.0, pause * 2)

    # -- transitions

    def create(
        self, job: NewJob, *, state: JobState, confirm_within: float = 0, deadline: Deadline
    ) -> str:
        """Write the record before the message is published.

        :param confirm_within: Seconds after which an enqueue without :meth:`confirm` is void.
        :return: ``created``, ``again`` (a retry), ``exists`` (nothing was done) or ``cancelled``.
        """
        return t.cast(
            "str",
            self._script(
                "create",
                job.id,
                job.fields(),
                job.nesting,
                job.retries,
                state.value,
                job.delay,
                confirm_within,
                deadline=deadline,
            ),
        )

    def confirm(self, job_id: str, deadline: Deadline) -> bool:
        """Note that the broker has the message; false if that came too late."""
        return bool(self._script("confirm", job_id, deadline=deadline))

    def refuse(self, job_id: str, reason: str, deadline: Deadline | None = None) -> None:
        """Take back an enqueue whose publish failed."""
        self._script("refuse", job_id, reason, deadline=deadline)

    def start(self, job: NewJob, *, worker: str, max_deliveries: int) -> Started:
        """Ask whether a worker may run the attempt ``job``, and note that it does."""
        answer = self._script(
            "start",
            job.id,
            worker,
            job.nesting,
            job.retries,
            max_deliveries,
            job.fields(),
            keys=[self.keys.result(job.id)],
        )
        return Started(*answer)

    def finish(
        self,
        job_id: str,
        state: str,
        result: str = "",
        fields: dict[str, str] | None = None,
        *,
        attempt: tuple[int, int] = (0, 0),
    ) -> bool:
        """Write result and state at once.

        :param state: A :class:`JobState`, or empty for a Celery state of the user's own.
        :param result: Celery's result, encoded; empty where none is kept.
        :param attempt: Celery's counts of replacements and retries, as in :class:`NewJob`.
        :return: False if the job was over, or has gone on to a newer attempt.
        """
        args = (state, result, json.dumps(fields or {}), *attempt)
        return bool(self._script("finish", job_id, *args, keys=[self.keys.result(job_id)]))

    def requeue(
        self, job_id: str, attempt: tuple[int, int] = (0, 0), *, forgive: bool = False
    ) -> bool:
        """Note that the message of a running job went back to the broker.

        :param forgive: The start does not count against the delivery limit.
        """
        return bool(self._script("requeue", job_id, *attempt, int(forgive)))

    def cancel_requested(self, job_id: str) -> bool:
        """Whether a running job is to be stopped."""
        return bool(self.call("HEXISTS", self.keys.job(job_id), "cancel_requested"))

    def cancel(self, job_id: str, by: str, result: str) -> tuple[JobState, bool]:
        """Cancel a job.

        :param result: Celery's result of a revoked task, encoded.
        :return: The state before, and whether the job runs and must be stopped there.
        :raises JobNotFound: There is no such job.
        """
        answer = self._script("cancel", job_id, by, result, keys=[self.keys.result(job_id)])
        if not answer:
            raise JobNotFound(job_id)
        return JobState(answer[0]), bool(answer[1])

    def progress(
        self, job_id: str, progress: Progress | None, lines: t.Sequence[tuple[float, str]] = ()
    ) -> int:
        """Note how far a running job is, and what it wrote.

        :param lines: When (seconds since the epoch) and what.
        :return: 0; 1 if the job is to be cancelled; -1 if it is over.
        """
        fields: dict[str, str] = {}
        if progress is not None:
            total = "" if progress.total is None else repr(progress.total)
            fields = {"done": repr(progress.done), "total": total, "message": progress.message}
        texts = [f"{at:.3f} {text[:LINE_LIMIT]}" for at, text in lines]
        # An empty JSON object is an empty table to the script, as it should be.
        args = (json.dumps(fields), self._max_log_lines, *texts)
        return int(self._script("progress", job_id, *args, keys=[self.keys.log(job_id)]))

    def attach(self, job_id: str, file: dict[str, t.Any]) -> None:
        """Note a file of a job.

        :raises JobNotFound: There is no such job.
        """
        if not self._script("attach", job_id, json.dumps(file)):
            raise JobNotFound(job_id)

    def prune(self, limit: int = 100) -> list[str]:
        """Forget jobs whose time is over; return their ids, whose files are to be removed."""
        return t.cast("list[str]", self._script("prune", "", limit))

    def settle(self, limit: int = 100) -> None:
        """End the enqueues that nobody confirmed in time."""
        self._script("settle", "", limit)

    # -- queries

    def get(self, job_id: str) -> JobRecord:
        """The record of a job, with its result.

        :raises JobNotFound: There is no such job.
        """
        commands = [
            ("HMGET", self.keys.job(job_id), *FIELDS),
            ("GET", self.keys.result(job_id)),
        ]
        values, result = self._pipeline(commands)
        if _unconfirmed(values):
            # The enqueue is under way, or its process died in the middle: have that settled.
            self.settle()
            values, result = self._pipeline(commands)
        record = self._record(job_id, values, result)
        if record is None:
            raise JobNotFound(job_id)
        return record

    def get_many(self, job_ids: t.Sequence[str]) -> list[JobRecord]:
        """The records that exist, without their results, in the order of ``job_ids``."""
        if not job_ids:
            return []
        commands = [("HMGET", self.keys.job(i), *FIELDS) for i in job_ids]
        replies = self._pipeline(commands)
        if any(_unconfirmed(values) for values in replies):
            self.settle()
            replies = self._pipeline(commands)
        records = (self._record(i, v) for i, v in zip(job_ids, replies, strict=True))
        return [record for record in records if record is not None]

    def newest(self, *, owner: str | None = None, limit: int = 50) -> list[JobRecord]:
        """The newest jobs, of one owner or of all."""
        key = self.keys.jobs if owner is None else self.keys.owner(owner)
        (ids,) = self._pipeline([("ZREVRANGE", key, 0, limit - 1)])
        return self.get_many(ids)

    def logs(self, job_id: str, after: int = 0) -> list[LogLine]:
        """The log lines with a number above ``after`` that are kept."""
        texts = self._script("logs", job_id, after, keys=[self.keys.log(job_id)])
        lines = (text.split(" ", 2) for text in texts)
        return [LogLine(int(seq), float(at), text) for seq, at, text in lines]

    def payload(self, job_id: str) -> str:
        """The body that the job was enqueued with, as JSON; empty if not known."""
        (payload,) = self._pipeline([("HGET", self.keys.job(job_id), "payload")])
        return payload or ""

    def state(self, job_id: str) -> JobState | None:
        """The state of a job; ``None`` where there is no such job."""
        (state,) = self._pipeline([("HGET", self.keys.job(job_id), "state")])
        return JobState(state) if state else None

    def _pipeline(self, commands: t.Sequence[tuple[t.Any, ...]]) -> list[t.Any]:
        def use(link: Link) -> list[t.Any]:
            replies = link.pipeline(commands)
            for reply in replies:
                if isinstance(reply, redis.ResponseError):
                    raise reply
            return replies

        return t.cast("list[t.Any]", self._call(use))

    def _record(
        self, job_id: str, values: list[str | None], result: str | None = None
    ) -> JobRecord | None:
        fields = {k: v for k, v in zip(FIELDS, values, strict=True) if v is not None}
        if "state" not in fields:
            return None
        if result:
            meta = json.loads(result)
            if fields["state"] == JobState.SUCCEEDED:
                fields["result"] = json.dumps(meta.get("result"))
            fields["traceback"] = meta.get("traceback") or ""
        return JobRecord.from_hash(job_id, fields)

    # -- workers

    def beat(self, worker: WorkerInfo, lifetime: float) -> None:
        """Say that ``worker`` is there for the next ``lifetime`` seconds; 0 says that it leaves."""
        info = json.dumps({s: getattr(worker, s) for s in worker.__slots__})
        args = (self.keys.prefix, "", self._retention, worker.name, info, lifetime)
        key = [self.keys.worker(worker.name)]
        self._call(lambda link: scripts.run(link, "beat", key, args))

    def workers(self) -> list[WorkerInfo]:
        """The workers that are alive, by name."""
        (names,) = self._pipeline([("ZRANGE", self.keys.workers, 0, -1)])
        if not names:
            return []
        (infos,) = self._pipeline([("MGET", *(self.keys.worker(n) for n in sorted(names)))])
        found = (json.loads(info) for info in infos if info)
        return [
            WorkerInfo(**{**info, "queues": tuple(info["queues"]), "tasks": tuple(info["tasks"])})
            for info in found
        ]

    def call(self, *command: t.Any, deadline: Deadline | None = None) -> t.Any:
        """Send one command."""
        return self._call(lambda link: link.call(*command), deadline)


def _embedded(step: t.Callable[[float], None] | None, deadline: Deadline) -> None:
    """Start the embedded server, or bring it back, where there is one."""
    if step is None:
        return
    try:
        step(deadline.left())
    except StoreUnavailable:
        raise
    except ServerError as error:
        raise StoreUnavailable(str(error), sent=False) from error


def _unconfirmed(values: list[str | None]) -> bool:
    return bool(values[FIELDS.index("unconfirmed_until")])


def _refusal(error: redis.ResponseError) -> str:
    text = str(error)
    if isinstance(error, OutOfMemoryError) or "OOM" in text:
        return "The server of OFFLOAD_URL is full. Raise its maxmemory, or let workers drain it."
    if isinstance(error, ReadOnlyError):
        return "OFFLOAD_URL names a read-only replica. Set it to the primary."
    if isinstance(error, NoPermissionError):
        return f"The user in OFFLOAD_URL may not do this: {text}. Extend its ACL."
    return f"The server of OFFLOAD_URL refused a command: {text}"
