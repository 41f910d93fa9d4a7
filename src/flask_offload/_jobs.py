"""What a job is: its states, its record, its events. Pure data, no I/O."""

from __future__ import annotations

import enum
import json
import typing as t
from dataclasses import dataclass, field

__all__ = ["JobEvent", "JobRecord", "JobState", "LogLine", "Progress", "Waiting"]


class JobState(enum.StrEnum):
    """Where a job is. :attr:`celery` gives the name that Celery uses for it."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"

    @property
    def finished(self) -> bool:
        """Whether this state is final."""
        return self in FINISHED

    @property
    def celery(self) -> str:
        """The Celery state, see :mod:`celery.states`."""
        return _CELERY_STATES[self]


FINISHED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.DEAD})

_CELERY_STATES = {
    JobState.SCHEDULED: "PENDING",
    JobState.QUEUED: "PENDING",
    JobState.RUNNING: "STARTED",
    JobState.RETRYING: "RETRY",
    JobState.SUCCEEDED: "SUCCESS",
    JobState.FAILED: "FAILURE",
    JobState.CANCELLED: "REVOKED",
    JobState.DEAD: "FAILURE",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running job is.

    :param done: Units of work done.
    :param total: Units of work in all; ``None`` where nobody knows.
    :param message: What the job does now, for the person waiting.
    """

    done: float = 0
    total: float | None = None
    message: str = ""

    @property
    def fraction(self) -> float | None:
        """Done over total, from 0 to 1; ``None`` where the total is not known."""
        if not self.total or self.total <= 0:
            return None
        return min(1.0, max(0.0, self.done / self.total))


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a job wrote.

    :param seq: Place of the line in the log, from 1.
    :param at: When, in seconds since the epoch, by the worker's clock.
    """

    seq: int
    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a job waits for.

    :param reason: ``none`` (no worker runs), ``queue`` (none listens to its queue), ``paused`` (its
        queue is), ``unknown`` (no worker knows its task), ``rate`` (no more may start at the
        moment), ``lost`` (its worker stopped answering in the middle), or empty: its turn.
    :param place: In line, from 1; ``None`` where nobody can tell.
    :param seconds: Until it starts, about; ``None`` where nobody can tell.
    :param limit: With ``rate``, Celery's limit, such as ``10/m``.
    """

    reason: t.Literal["", "none", "queue", "paused", "unknown", "rate", "lost"] = ""
    place: int | None = None
    seconds: float | None = None
    limit: str = ""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A change of a job, as the feed delivers it.

    :param id: Place in the feed: the id of the entry in the server's stream.
    :param kind: The state that the job changed to, or ``progress``, ``log``, ``file``.
    """

    id: str
    job_id: str
    kind: str


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What is known of a job. Times are seconds since the epoch by the server's clock.

    :param owners: Who may see it: ``u:<user id>``, ``c:<browser>``.
    :param args: Positional arguments for display; sensitive ones are masked.
    :param kwargs: Keyword arguments for display; sensitive ones are masked.
    :param first_started_at: When a worker first started it.
    :param started_at: When a worker last started it.
    :param attempt: Which try this is, from 1; counts Celery's retries.
    :param deliveries: How often a worker started the present attempt. More than one means that
        a worker died, or was cut off, in the middle.
    :param starts: How often a worker started this job, all attempts together.
    :param worker: Name of the worker that started it last.
    :param error: One line on what went wrong, for developers and operators.
    :param user_error: One sentence for the person waiting (:exc:`.UserError`).
    :param response: Of a background view, what is known of the answer that is kept: ``status``,
        ``size``; ``None`` where there is none.
    :param cancel_requested: Somebody wants it stopped while it runs.
    """

    id: str
    task: str
    state: JobState
    title: str = ""
    queue: str = ""
    owners: tuple[str, ...] = ()
    args: list[t.Any] = field(default_factory=list)
    kwargs: dict[str, t.Any] = field(default_factory=dict)
    created_at: float = 0
    due_at: float | None = None
    first_started_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    attempt: int = 1
    max_attempts: int | None = None
    deliveries: int = 0
    starts: int = 0
    worker: str = ""
    progress: Progress = field(default_factory=Progress)
    result: t.Any = None
    error: str = ""
    error_type: str = ""
    user_error: str = ""
    traceback: str = ""
    cancel_requested: bool = False
    cancelled_by: str = ""
    files: tuple[dict[str, t.Any], ...] = ()
    response: dict[str, t.Any] | None = None
    log_lines: int = 0
    log_dropped: int = 0
    locale: str = ""
    request_id: str = ""
    root_id: str = ""
    parent_id: str = ""
    event_id: str = "0-0"

    @classmethod
    def from_hash(cls, job_id: str, fields: t.Mapping[str, str]) -> JobRecord:
        """Read a record from the fields of its hash on the server."""
        get = fields.get
        # Started once, and over: that is not counted.
        once = get("started_at") if "starts" not in fields else None
        return cls(
            id=job_id,
            task=get("task", ""),
            state=JobState(fields["state"]),
            title=get("title", ""),
            queue=get("queue", ""),
            owners=tuple(_json(get("owners"), [])),
            args=_json(get("args"), []),
            kwargs=_json(get("kwargs"), {}),
            created_at=float(get("created_at") or 0),
            due_at=_float(get("due_at")),
            first_started_at=_float(get("first_started_at") or once),
            started_at=_float(get("started_at")),
            finished_at=_float(get("finished_at")),
            attempt=int(get("retries") or 0) + 1,
            max_attempts=int(fields["max_retries"]) + 1 if get("max_retries") else None,
            deliveries=1 if once else int(get("deliveries") or 0),
            starts=1 if once else int(get("starts") or 0),
            worker=get("worker", ""),
            progress=Progress(
                done=float(get("done") or 0), total=_float(get("total")), message=get("message", "")
            ),
            result=_json(get("result"), None),
            error=get("error", ""),
            error_type=get("error_type", ""),
            user_error=get("user_error", ""),
            traceback=get("traceback", ""),
            cancel_requested=bool(get("cancel_requested")),
            cancelled_by=get("cancelled_by", ""),
            files=tuple(_json(get("files"), [])),
            response=_json(get("response"), None),
            log_lines=int(get("log_lines") or 0),
            log_dropped=int(get("log_dropped") or 0),
            locale=get("locale", ""),
            request_id=get("request_id", ""),
            root_id=get("root_id", ""),
            parent_id=get("parent_id", ""),
            # That a job was accepted is in the stream, and has no id here.
            event_id=get("event_id") or f"{int(float(get('created_at') or 0) * 1000)}-0",
        )


def _json(text: str | None, default: t.Any) -> t.Any:
    return json.loads(text) if text else default


def _float(text: str | None) -> float | None:
    return float(text) if text else None
