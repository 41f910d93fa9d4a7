"""What is shown of a job: the JSON that clients get, and what the page makes of it. Pure."""

from __future__ import annotations

import json
import math
import time
import typing as t
from dataclasses import dataclass

from .._jobs import JobRecord, JobState, LogLine, Waiting
from . import words
from .links import Links
from .reading import coarse, iso
from .sentences import Part, parts_json, plain
from .texts import gettext, ngettext

if t.TYPE_CHECKING:
    from .._control import Control

__all__ = ["FAILED", "Seen", "dumps", "job_json", "log_json", "response_url"]

FAILED = frozenset({JobState.FAILED, JobState.DEAD})


@dataclass(frozen=True, slots=True)
class Seen:
    """When, and by what light, a record is looked at.

    :param debug: Whether the reader is the developer, who is told commands.
    :param repeatable: Whether it may be run again from its page.
    :param stops: What :meth:`.Control.stops` says.
    """

    now: float
    waiting: Waiting = words.NOTHING
    debug: bool = False
    repeatable: bool = False
    stops: str = "unstarted"

    @classmethod
    def of(cls, control: Control, record: JobRecord, debug: bool) -> Seen:
        """As it is now."""
        return cls.of_many(control, [record], debug)[0]

    @classmethod
    def of_many(cls, control: Control, records: t.Sequence[JobRecord], debug: bool) -> list[Seen]:
        """As they are now, in the same few round trips for all."""
        now = time.time()
        return [
            cls(now, waiting, debug, control.repeatable(record), control.stops(record))
            for record, waiting in zip(records, control.waiting_many(records), strict=True)
        ]

    def lines(
        self, record: JobRecord, brief: bool = False
    ) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
        """See :func:`.words.lines`."""
        return words.lines(
            record, now=self.now, waiting=self.waiting, debug=self.debug, brief=brief
        )


def job_json(
    record: JobRecord, links: Links, seen: Seen, *, brief: bool = False
) -> dict[str, t.Any]:
    """A job as JSON.

    ``id``
        The id of the job, and the reference that a person can send.
    ``state``
        ``scheduled``, ``queued``, ``running``, ``retrying``, ``succeeded``, ``failed``,
        ``cancelled`` or ``dead``; the last four are final.
    ``celery_state``
        Celery's name of the state.
    ``title``
        The name of the job, for people.
    ``text``
        The state in one sentence, for people; times in UTC.
    ``message``
        What the task says that it does now.
    ``progress``
        ``done`` and ``total`` in the units of the task, and ``fraction`` from 0 to 1; the last
        two are null where the total is not known.
    ``attempt``, ``max_attempts``
        Which try this is, from 1, and how many there may be; the second may be null.
    ``created_at``, ``due_at``, ``started_at``, ``finished_at``
        ISO 8601, UTC, or null. ``due_at`` is when a scheduled or retried job is to start.
    ``expected_at``
        When a running job will be over if it goes on as it has; null where nobody can tell.
    ``result``
        What the task returned; null unless it succeeded, and in lists.
    ``error``
        One sentence for people on why it failed, else null.
    ``files``
        ``name``, ``size`` in bytes, ``content_type`` and ``url`` of each.
    ``log_lines``, ``log_dropped``
        How many lines the job wrote, and how many of the first are no longer kept.
    ``waiting_for``
        ``none`` (no worker runs), ``queue`` (none takes jobs of its queue), ``paused`` (its queue
        is), ``unknown`` (no worker knows its task), ``rate`` (no more may start at the moment),
        ``lost`` (its worker stopped answering), else empty.
    ``place``, ``starts_in``
        Place in line, from 1, and about how many seconds until it starts; null where nobody can
        tell.
    ``url``, ``log_url``
        Its page, and its log as a text file.
    ``cancel_url``, ``retry_url``
        Where to POST to stop it, and to run it again with the same input; null when that is not
        to be had.
    ``response_url``
        Of a background view that is over: its response, where the page moves on to; else null.
    ``now``
        The time of the answer.
    ``version``
        Of what is told of the job; of two answers, the one with the greater pair of numbers is
        the newer.
    ``view``
        What our own page needs on top. It may change in any release.
    """
    finished = record.state.finished
    progress = record.progress
    now, waiting = seen.now, seen.waiting
    end = words.expected_end(record) if record.state is JobState.RUNNING else None
    text = words.sentence(record, now=now, waiting=waiting, debug=seen.debug)
    line, second_line = seen.lines(record, brief)
    return {
        "id": record.id,
        "state": record.state.value,
        "celery_state": record.state.celery,
        "title": record.title,
        "text": plain(text, now),
        "message": progress.message,
        "progress": {
            "done": progress.done,
            "total": progress.total,
            "fraction": progress.fraction,
        },
        "attempt": record.attempt,
        "max_attempts": record.max_attempts,
        "created_at": iso(record.created_at),
        "due_at": iso(record.due_at),
        "started_at": iso(record.started_at),
        "finished_at": iso(record.finished_at),
        "expected_at": iso(end),
        "result": record.result if record.state is JobState.SUCCEEDED else None,
        "error": words.failure(record) if record.state in FAILED else None,
        "files": [
            {
                "name": file["name"],
                "size": file["size"],
                "content_type": file["content_type"],
                "url": links.file(file["name"]),
            }
            for file in record.files
        ],
        "log_lines": record.log_lines,
        "log_dropped": record.log_dropped,
        "waiting_for": waiting.reason,
        "place": waiting.place,
        "starts_in": None if waiting.seconds is None else coarse(waiting.seconds),
        "url": links.to(),
        "log_url": links.to("/log.txt"),
        "cancel_url": None if finished or record.cancel_requested else links.to("/cancel"),
        "retry_url": links.to("/retry") if seen.repeatable else None,
        "response_url": response_url(record, links),
        "now": iso(now),
        "version": record.event_id,
        "view": {
            "heading": words.heading(record),
            "word": words.word(record),
            "text": parts_json(line),
            "meta": parts_json(second_line),
            "notes": words.notes(record),
            "stop": gettext(words.STOPS[seen.stops]),
            "log": log_words(record),
            # What the page has rendered anew by the server when it changes.
            "made_of": [record.state.value, record.attempt, len(record.files)],
        },
    }


def log_words(record: JobRecord) -> list[str]:
    """How many lines the log has, and how many are no longer kept."""
    lines = ngettext("%(number)s line", "%(number)s lines", record.log_lines)
    dropped = ngettext(
        "The first line is no longer kept.",
        "The first %(number)s lines are no longer kept.",
        record.log_dropped,
    )
    return [lines, dropped if record.log_dropped else ""]


def response_url(record: JobRecord, links: Links) -> str | None:
    """The address of the response of a background view that is over."""
    if not record.state.finished or record.response is None:
        return None
    return links.to("/response")


def log_json(lines: t.Iterable[LogLine]) -> list[dict[str, t.Any]]:
    """Log lines as JSON: ``seq`` (from 1), ``at`` and ``text`` of each."""
    return [{"seq": line.seq, "at": iso(line.at), "text": line.text} for line in lines]


def dumps(value: t.Any) -> str:
    """``value`` as JSON that every parser reads.

    Python's own encoder writes ``NaN`` and ``Infinity``, which a task may well return and which
    no browser can read. They become null.
    """
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))


def _finite(value: t.Any) -> t.Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
