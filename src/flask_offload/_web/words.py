"""What a job is called in words for the person waiting. Pure: a record and the time go in."""

from __future__ import annotations

import math

from .._jobs import JobRecord, JobState, Waiting
from .inline import FARTHEST, in_line
from .reading import duration, number
from .sentences import Moment, Part, around
from .texts import gettext as _
from .texts import mark

__all__ = [
    "BY_KEY",
    "NOTHING",
    "STOPS",
    "expected_end",
    "failure",
    "heading",
    "lines",
    "meta",
    "notes",
    "sentence",
    "word",
]

#: What ``cancelled_by`` says of a person who came by a job-bound key.
BY_KEY = "link"
#: A job that waits for nothing.
NOTHING = Waiting()

_WORDS = {
    JobState.SCHEDULED: mark("Scheduled"),
    JobState.QUEUED: mark("Waiting"),
    JobState.RUNNING: mark("Working"),
    JobState.RETRYING: mark("Trying again"),
    JobState.SUCCEEDED: mark("Done"),
    JobState.FAILED: mark("Failed"),
    JobState.CANCELLED: mark("Stopped"),
    JobState.DEAD: mark("Failed"),
}
#: What is said before a job is stopped, by what :meth:`.Control.stops` says.
STOPS = {
    "unstarted": mark("It has not started, and will not."),
    "at once": mark("It ends at once. What it has done so far is not undone."),
    "soon": mark("It ends within a few seconds. What it has done so far is not undone."),
    "report": mark(
        "It ends when it next says how far it is. What it has done so far is not undone."
    ),
}


def word(record: JobRecord) -> str:
    """The state in one or two words."""
    if record.state is JobState.RUNNING and record.cancel_requested:
        return _("Stopping")
    return _(_WORDS[record.state])


def heading(record: JobRecord) -> str:
    """The title of the document: how it is, then what it is, as a tab is narrow."""
    fraction = record.progress.fraction
    state = word(record)
    if record.state is JobState.RUNNING and not record.cancel_requested and fraction is not None:
        state = f"{math.floor(fraction * 100)}%"
    return f"{state} · {record.title}"


def sentence(
    record: JobRecord, *, now: float, waiting: Waiting = NOTHING, debug: bool = False
) -> tuple[Part, ...]:
    """What the person waiting reads of the state.

    :param waiting: What :meth:`.Control.waiting` says of the job.
    :param debug: Whether the reader is the developer, who can start a worker.
    """
    match record.state:
        case JobState.SCHEDULED if record.due_at is not None and record.due_at > now:
            return around(_("Starts at %(time)s"), "time", Moment(record.due_at, "clock"))
        case JobState.SCHEDULED | JobState.QUEUED:
            return in_line(record, waiting, debug)
        case JobState.RUNNING if record.cancel_requested:
            return (_("Stopping"),)
        case JobState.RUNNING if waiting.reason == "lost":
            return (_("Interrupted: its worker stopped answering. It will be started again"),)
        case JobState.RUNNING:
            return (record.progress.message or _("Working"),)
        case JobState.RETRYING:
            return _retrying(record)
        case JobState.SUCCEEDED:
            took = _took(record)
            return (_("Done in %(time)s", time=took) if took else _("Done"),)
        case JobState.CANCELLED:
            return _stopped(record)
    return (failure(record),)


def _retrying(record: JobRecord) -> tuple[Part, ...]:
    count = (
        _attempt(record) if record.max_attempts else _("attempt %(number)s", number=record.attempt)
    )
    if record.due_at is None:
        return (_("That did not work yet. Trying again (%(count)s)", count=count),)
    text = _(
        "That did not work yet. Trying again %(time)s (%(count)s)", time="%(time)s", count=count
    )
    return around(text, "time", Moment(record.due_at, "in"))


def _stopped(record: JobRecord) -> tuple[Part, ...]:
    by_reader = record.cancelled_by and record.cancelled_by in (*record.owners, BY_KEY)
    by = "you" if by_reader else "operator" if record.cancelled_by else ""
    at = record.finished_at
    if at is None:
        words = {"you": _("Stopped by you"), "operator": _("Stopped by an operator")}
        return (words.get(by, _("Stopped")),)
    texts = {
        "you": _("Stopped by you at %(time)s"),
        "operator": _("Stopped by an operator at %(time)s"),
    }
    return around(texts.get(by, _("Stopped at %(time)s")), "time", Moment(at, "clock"))


def meta(record: JobRecord, *, waiting: Waiting = NOTHING, brief: bool = False) -> tuple[Part, ...]:
    """How far a running job is: ``7 of 24 · about 20 s left · 8 s so far``.

    :param brief: For a list: not how long it has been at it, where it is known how long it will be.
    """
    if record.state is not JobState.RUNNING or record.started_at is None:
        return ()
    counted = _counted(record)
    if waiting.reason == "lost":
        return (counted,) if counted else ()
    so_far = around(_("%(time)s so far"), "time", Moment(record.started_at, "for"))
    if not counted:
        return so_far
    end = expected_end(record)
    if end is None:
        return (counted, " · ", *so_far)
    left = (counted, Moment(end, "left"))
    return left if brief else (*left, " · ", *so_far)


def _counted(record: JobRecord) -> str:
    done, total = record.progress.done, record.progress.total
    if not math.isfinite(done) or (total is not None and not math.isfinite(total)):
        return ""
    if not total or total < 0:
        return _("%(number)s done", number=number(done)) if done > 0 else ""
    if total <= 1:
        return f"{math.floor((record.progress.fraction or 0) * 100)}%"
    return _("%(done)s of %(total)s", done=number(done), total=number(total))


def expected_end(record: JobRecord) -> float | None:
    """When a running job will be over, if it goes on as it has; ``None`` where that would be
    a guess."""
    fraction = record.progress.fraction
    if record.started_at is None or not fraction or fraction >= 1:
        return None
    # The time of the last event stands for the time of the last progress. It comes from the
    # record, so that the answer is the same instant at each look, and the page can count down.
    known_at = int(record.event_id.partition("-")[0] or 0) / 1000
    elapsed = known_at - record.started_at
    left = elapsed * (1 - fraction) / fraction
    return known_at + left if elapsed >= 2 and left < FARTHEST else None


def lines(
    record: JobRecord,
    *,
    now: float,
    waiting: Waiting = NOTHING,
    debug: bool = False,
    brief: bool = False,
) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """The two lines below the state: :func:`sentence` and :func:`meta`.

    A sentence that only repeats the state, right above it, gives way to the second line.
    """
    text = sentence(record, now=now, waiting=waiting, debug=debug)
    more = meta(record, waiting=waiting, brief=brief)
    return (more, ()) if text == (word(record),) else (text, more)


def notes(record: JobRecord) -> list[str]:
    """What else is worth knowing, a sentence each."""
    found = []
    if record.attempt > 1 and record.state is not JobState.RETRYING:
        found.append(_("Attempt %(number)s", number=_attempt(record)))
    if record.deliveries > 1:
        found.append(_("Started again because its worker stopped"))
    return found


def _attempt(record: JobRecord) -> str:
    if not record.max_attempts:
        return str(record.attempt)
    return _("%(done)s of %(total)s", done=record.attempt, total=record.max_attempts)


def failure(record: JobRecord) -> str:
    """Why a job failed, for the person waiting: never the error itself."""
    return record.user_error or _("This did not work. Nothing more was changed.")


def _took(record: JobRecord) -> str:
    if record.first_started_at is None or record.finished_at is None:
        return ""
    return duration(record.finished_at - record.first_started_at)
