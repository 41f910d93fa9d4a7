"""Reading."""

from __future__ import annotations

import base64
import json
import typing as t

import redis

from .._jobs import JobRecord, JobState, LogLine
from ..exceptions import JobNotFound
from . import scripts
from .base import Base
from .connection import Link
from .data import WorkerInfo

__all__ = ["Queries"]

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
    "response",
    "log_lines",
    "log_dropped",
    "locale",
    "request_id",
    "root_id",
    "parent_id",
    "event_id",
    "unconfirmed_until",
]


class Queries(Base):
    """What is known of jobs and workers."""

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

    def get_many(self, job_ids: t.Sequence[str], whole: t.Collection[str] = ()) -> list[JobRecord]:
        """The records that exist, in the order of ``job_ids``.

        :param whole: Those of them that are wanted with their results.
        """
        if not job_ids:
            return []
        commands: list[tuple[str, ...]] = []
        for job_id in job_ids:
            commands.append(("HMGET", self.keys.job(job_id), *FIELDS))
            if job_id in whole:
                commands.append(("GET", self.keys.result(job_id)))
        replies = self._pipeline(commands)
        if any(_unconfirmed(values) for values in replies if isinstance(values, list)):
            self.settle()
            replies = self._pipeline(commands)
        rest = iter(replies)
        records = (
            self._record(job_id, next(rest), next(rest) if job_id in whole else None)
            for job_id in job_ids
        )
        return [record for record in records if record is not None]

    def newest(self, *, owner: str | None = None, limit: int = 50) -> list[JobRecord]:
        """The newest jobs, of one owner or of all."""
        key = self.keys.jobs if owner is None else self.keys.owner(owner)
        (ids,) = self._pipeline([("ZREVRANGE", key, 0, limit - 1)])
        return self.get_many(ids)

    def newest_succeeded(self, limit: int) -> list[tuple[str, float, float]]:
        """Task, start and end of the jobs that succeeded last, about: what expires when such a job
        of now does, or before."""
        keep = json.loads(self._retention)[JobState.SUCCEEDED]
        (clock,) = self._pipeline([("TIME",)])
        end = int(clock[0]) + 1 + keep
        expiry = f"{self.keys.prefix}expiry"
        (entries,) = self._pipeline(
            [("ZRANGE", expiry, end, "-inf", "BYSCORE", "REV", "LIMIT", 0, limit)]
        )
        found = self._pipeline(
            [
                (
                    "HMGET",
                    self.keys.job(e.partition("\n")[0]),
                    "state",
                    "task",
                    "started_at",
                    "finished_at",
                )
                for e in entries
            ]
        )
        return [
            (task, float(started_at), float(finished_at))
            for state, task, started_at, finished_at in found
            if state == JobState.SUCCEEDED and task and started_at and finished_at
        ]

    def logs(self, job_id: str, after: int = 0) -> list[LogLine]:
        """The log lines with a number above ``after`` that are kept."""
        texts = self._script("logs", job_id, after, keys=[self.keys.log(job_id)])
        lines = (text.split(" ", 2) for text in texts)
        return [LogLine(int(seq), float(at), text) for seq, at, text in lines]

    def payload(self, job_id: str) -> dict[str, t.Any]:
        """What the job was enqueued with: ``args``, ``kwargs``, ``options``; or nothing."""
        ((payload, envelope),) = self._pipeline(
            [("HMGET", self.keys.job(job_id), "payload", "envelope")]
        )
        if payload:
            return t.cast("dict[str, t.Any]", json.loads(payload))
        if not envelope:
            return {}
        try:
            args, kwargs, *_ = json.loads(_body(envelope))
        except (ValueError, KeyError, TypeError):
            return {}  # of another client, compressed or in a format of its own
        return {"args": args, "kwargs": kwargs, "options": {}}

    def response(self, job_id: str) -> dict[str, t.Any] | None:
        """The whole of what :meth:`.Records.keep_response` kept."""
        kept = self.call("HGET", self.keys.job(job_id), "response_kept")
        return t.cast("dict[str, t.Any]", json.loads(kept)) if kept else None

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


def _unconfirmed(values: list[str | None]) -> bool:
    return bool(values[FIELDS.index("unconfirmed_until")])


def _body(envelope: str) -> str | bytes:
    """The body of a stored message; see ``_celery/stored.py``."""
    if envelope.startswith("{"):
        return base64.b64decode(json.loads(envelope)["body"])
    body = envelope.partition("\n")[2]
    return f"{body}]" if body.endswith("}") else body
