"""What the store takes and gives, besides records."""

from __future__ import annotations

import json
import time
import typing as t
from dataclasses import dataclass, field
from types import MappingProxyType

from .._jobs import JobState

__all__ = ["Accepted", "Delivery", "Fetched", "Finished", "NewJob", "Started", "WorkerInfo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What an enqueue writes down before anything is published.

    :param args: Arguments for display, as JSON.
    :param payload: The whole body, as JSON, for running the job again.
    :param delay: Seconds until it is due.
    :param priority: 0 to 9; 0 goes first, as in Celery on Redis.
    :param unique: While a job with the same text here is not over, it takes this one's place.
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
    priority: int = 0
    unique: str = ""
    locale: str = ""
    request_id: str = ""
    root_id: str = ""
    parent_id: str = ""

    def fields(self) -> str:
        """The fields of the hash, as JSON."""
        return json.dumps(
            {
                "queue": self.queue,
                "owners": json.dumps(self.owners),
                "priority": str(self.priority),
                **({"unique": self.unique} if self.unique else {}),
                **self.more(),
            }
        )

    def more(self) -> dict[str, str]:
        """The fields that the server only keeps. One that is as usual is left out."""
        fields = {
            "task": self.task,
            "title": self.title,
            "args": "" if self.args == "[]" else self.args,
            "kwargs": "" if self.kwargs == "{}" else self.kwargs,
            "max_retries": "" if self.max_retries is None else str(self.max_retries),
            "payload": self.payload,
            "locale": self.locale,
            "request_id": self.request_id,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
        }
        return {name: value for name, value in fields.items() if value}


class Accepted:
    """A job on its way in. A plain class, as one is made for each enqueue.

    :param rare: What most jobs have none of; see :meth:`rarely`.
    :param envelope: The whole message; empty where another broker carries it.
    :param owners: As JSON; empty for none.
    :param fields: Names and values of what the server only keeps.
    """

    __slots__ = ("envelope", "fields", "id", "owners", "queue", "rare", "state")

    def __init__(
        self, job_id: str, rare: str, state: str, envelope: str, queue: str, owners: str,
        fields: t.Sequence[str],
    ) -> None:  # fmt: skip
        self.id = job_id
        self.rare = rare
        self.state = state
        self.envelope = envelope
        self.queue = queue
        self.owners = owners
        self.fields = fields

    @property
    def size(self) -> int:
        """Of its message, about."""
        return len(self.envelope)

    @property
    def is_usual(self) -> bool:
        """Whether it only has to be put in line."""
        return not self.rare and self.state == JobState.QUEUED and bool(self.envelope)

    def record(self) -> tuple[str, ...]:
        """The record of one that is as usual, as far as it is known here: first what the script
        reads."""
        if self.owners:
            known = ("queue", self.queue, "owners", self.owners, "envelope", self.envelope)
            return (*known, *self.fields)
        return ("queue", self.queue, "envelope", self.envelope, *self.fields)

    def args(self) -> tuple[t.Any, ...]:
        """All that there is of it, for the script that takes any."""
        known = (self.rare, self.state, self.envelope, self.queue, self.owners)
        return (*known, len(self.fields), *self.fields)

    @staticmethod
    def rarely(
        *,
        nesting: int = 0,
        retries: int = 0,
        delay: float = 0,
        confirm_within: float = 0,
        priority: int = 0,
        unique: str = "",
    ) -> str:
        """
        :param confirm_within: Seconds after which it is void unless it is confirmed; 0 for never.
        """
        values = (nesting, retries, delay, confirm_within, priority, unique)
        return json.dumps(values) if any(values) else ""

    @classmethod
    def of(
        cls, job: NewJob, state: JobState, envelope: str = "", confirm_within: float = 0
    ) -> Accepted:
        """That of a record, with its message."""
        rare = cls.rarely(
            nesting=job.nesting, retries=job.retries, delay=job.delay,
            confirm_within=confirm_within, priority=job.priority, unique=job.unique,
        )  # fmt: skip
        owners = json.dumps(job.owners) if job.owners else ""
        more = [text for pair in job.more().items() for text in pair]
        return cls(job.id, rare, state.value, envelope, job.queue, owners, more)


@dataclass(frozen=True, slots=True)
class Started:
    """The answer to a worker that wants to start a job.

    :param verdict: ``run``, ``wait`` (the enqueue is not confirmed yet), ``cancelled``, ``dead``
        (started too often) or ``drop`` (a leftover message).
    :param why: For ``drop``, why; for ``wait``, the seconds after which it will be settled.
    :param origin: For ``run``, as in :class:`Delivery`.
    """

    verdict: str
    why: str = ""
    origin: tuple[str, ...] = ()


class Finished(t.NamedTuple):
    """What came of a job.

    :param state: A :class:`JobState`, or empty for a Celery state of the user's own.
    :param result: Celery's result, encoded; empty where none is kept.
    :param attempt: Celery's counts of replacements and retries, as in :class:`NewJob`.
    :param fence: The token of the delivery; 0 on brokers that have none.
    :param ran: Seconds that it ran, where its start was not told.
    """

    job_id: str
    state: str
    result: str = ""
    fields: t.Mapping[str, str] = MappingProxyType({})
    attempt: tuple[int, int] = (0, 0)
    fence: int = 0
    ran: float | None = None


class Delivery(t.NamedTuple):
    """A job that a worker was handed out.

    :param fence: The token that it must show to do anything with the job. Higher at each
        delivery, so that who has lost the lease is refused.
    :param envelope: The whole message, as JSON.
    :param at_once: It may start without asking; that it did is told later, or with its end.
    :param origin: Owners (as JSON), locale, request id and root id, for what it enqueues in turn.
    """

    job_id: str
    fence: int
    queue: str
    envelope: str
    at_once: bool = False
    origin: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer to a worker that asks for jobs.

    :param more: Whether more are waiting.
    :param due_in: Seconds until the next delayed job is due; ``None`` if there is none.
    :param at: From when on these count, by the monotonic clock: when it was asked, or when the
        answer came to who did not know when the server would look.
    """

    jobs: list[Delivery]
    more: bool = False
    due_in: float | None = None
    at: float = field(default_factory=time.monotonic)


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
