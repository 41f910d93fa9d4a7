"""What a job is called in words for the person waiting. Pure: a record and the time go in."""

from __future__ import annotations

import math

from .._jobs import JobRecord, JobState
from .reading import duration, number
from .sentences import Code, Moment, Part

__all__ = [
    "BY_KEY",
    "expected_end",
    "failure",
    "heading",
    "lines",
    "meta",
    "notes",
    "sentence",
    "word",
]

PLAIN_FAILURE = "This did not work. Nothing more was changed."
#: What ``cancelled_by`` says of a person who came by a job-bound key.
BY_KEY = "link"
#: An estimate beyond this many seconds says more about the method than about the job.
FARTHEST = 3 * 86_400

_WORDS = {
    JobState.SCHEDULED: "Scheduled",
    JobState.QUEUED: "Waiting",
    JobState.RUNNING: "Working",
    JobState.RETRYING: "Trying again",
    JobState.SUCCEEDED: "Done",
    JobState.FAILED: "Failed",
    JobState.CANCELLED: "Stopped",
    JobState.DEAD: "Failed",
}


def word(record: JobRecord) -> str:
    """The state in one or two words."""
    if record.state is JobState.RUNNING and record.cancel_requested:
        return "Stopping"
    return _WORDS[record.state]


def heading(record: JobRecord) -> str:
    """The title of the document: how it is, then what it is, as a tab is narrow."""
    fraction = record.progress.fraction
    state = word(record)
    if state == "Working" and fraction is not None:
        state = f"{math.floor(fraction * 100)}%"
    return f"{state} · {record.title}"


def sentence(
    record: JobRecord, *, now: float, waiting_for: str = "", debug: bool = False
) -> tuple[Part, ...]:
    """What the person waiting reads of the state.

    :param waiting_for: What :meth:`.Control.worker_missing` says of the job.
    :param debug: Whether the reader is the developer, who can start a worker.
    """
    match record.state:
        case JobState.SCHEDULED if record.due_at is not None and record.due_at > now:
            return ("Starts at ", Moment(record.due_at, "clock"))
        case JobState.SCHEDULED | JobState.QUEUED:
            return _waiting(record, waiting_for, debug)
        case JobState.RUNNING if record.cancel_requested:
            return ("Stopping",)
        case JobState.RUNNING if waiting_for == "lost":
            return ("Interrupted: its worker stopped answering. It will be started again",)
        case JobState.RUNNING:
            return (record.progress.message or "Working",)
        case JobState.RETRYING:
            return _retrying(record)
        case JobState.SUCCEEDED:
            took = _took(record)
            return (f"Done in {took}" if took else "Done",)
        case JobState.CANCELLED:
            return _stopped(record)
    return (failure(record),)


def _waiting(record: JobRecord, waiting_for: str, debug: bool) -> tuple[Part, ...]:
    if not waiting_for:
        return ("Waiting in line",)
    command = "flask offload worker"
    text = "Waiting. No worker is running"
    if waiting_for == "queue":
        command += f" -Q {record.queue}"
        text += " for this kind of job"
    return (text + "; start one with ", Code(command)) if debug else (text,)


def _retrying(record: JobRecord) -> tuple[Part, ...]:
    text = "That did not work yet. Trying again"
    count = f" ({'' if record.max_attempts else 'attempt '}{_attempt(record)})"
    if record.due_at is None:
        return (text + count,)
    return (text + " ", Moment(record.due_at, "in"), count)


def _stopped(record: JobRecord) -> tuple[Part, ...]:
    by_reader = record.cancelled_by and record.cancelled_by in (*record.owners, BY_KEY)
    text = "Stopped by you" if by_reader else "Stopped"
    return (text + " at ", Moment(record.finished_at, "clock")) if record.finished_at else (text,)


def meta(record: JobRecord, *, waiting_for: str = "") -> tuple[Part, ...]:
    """How far a running job is: ``7 of 24 · about 20 s left``, else how long it has been at it."""
    if record.state is not JobState.RUNNING or record.started_at is None:
        return ()
    counted = _counted(record)
    if waiting_for == "lost":
        return (counted,) if counted else ()
    end = expected_end(record)
    if counted and end is not None:
        return (counted, Moment(end, "left"))
    return (f"{counted} · " if counted else "", Moment(record.started_at, "for"), " so far")


def _counted(record: JobRecord) -> str:
    done, total = record.progress.done, record.progress.total
    if not math.isfinite(done) or (total is not None and not math.isfinite(total)):
        return ""
    if not total or total < 0:
        return f"{number(done)} done" if done > 0 else ""
    if total <= 1:
        return f"{math.floor((record.progress.fraction or 0) * 100)}%"
    return f"{number(done)} of {number(total)}"


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
    record: JobRecord, *, now: float, waiting_for: str = "", debug: bool = False
) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """The two lines below the state: :func:`sentence` and :func:`meta`.

    A sentence that only repeats the state, right above it, gives way to the second line.
    """
    text = sentence(record, now=now, waiting_for=waiting_for, debug=debug)
    more = meta(record, waiting_for=waiting_for)
    return (more, ()) if text == (word(record),) else (text, more)


def notes(record: JobRecord) -> list[str]:
    """What else is worth knowing, a sentence each."""
    found = []
    if record.attempt > 1 and record.state is not JobState.RETRYING:
        found.append(f"Attempt {_attempt(record)}")
    if record.deliveries > 1:
        found.append("Started again because its worker stopped")
    return found


def _attempt(record: JobRecord) -> str:
    of = f" of {record.max_attempts}" if record.max_attempts else ""
    return f"{record.attempt}{of}"


def failure(record: JobRecord) -> str:
    """Why a job failed, for the person waiting: never the error itself."""
    return record.user_error or PLAIN_FAILURE


def _took(record: JobRecord) -> str:
    if record.first_started_at is None or record.finished_at is None:
        return ""
    return duration(record.finished_at - record.first_started_at)
