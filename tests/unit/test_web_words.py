"""What a record reads like. The words are those of UX.md."""

from __future__ import annotations

import doctest
import typing as t

import pytest

from flask_offload._jobs import JobRecord, JobState, Progress, Waiting
from flask_offload._web import reading, words
from flask_offload._web.sentences import Code, Moment, parts_json, plain

# Sunday, 22 November 2026, 14:00:00 UTC
NOW = 1_795_356_000.0


def record(state: JobState = JobState.RUNNING, **fields: t.Any) -> JobRecord:
    return JobRecord("id", "app.report", state, title="Monthly report", **fields)


def said(job: JobRecord, **options: t.Any) -> str:
    return plain(words.sentence(job, now=NOW, **options), NOW)


def test_examples_in_docstrings() -> None:
    results = doctest.testmod(reading)
    assert results.attempted >= 6
    assert not results.failed


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (record(JobState.SCHEDULED, due_at=NOW + 300), "Starts at 14:05 UTC"),
        (record(JobState.SCHEDULED, due_at=NOW + 86_400), "Starts at 23 Nov 14:00 UTC"),
        (record(JobState.SCHEDULED, due_at=NOW - 1), "Waiting in line"),
        (record(JobState.QUEUED), "Waiting in line"),
        (record(progress=Progress(message="Reading")), "Reading"),
        (record(), "Working"),
        (record(cancel_requested=True, progress=Progress(message="Reading")), "Stopping"),
        (
            record(JobState.RETRYING, due_at=NOW + 30, attempt=2, max_attempts=5),
            "That did not work yet. Trying again in 30 s (2 of 5)",
        ),
        (
            record(JobState.RETRYING, due_at=NOW - 1, attempt=2),
            "That did not work yet. Trying again now (attempt 2)",
        ),
        (
            record(JobState.SUCCEEDED, first_started_at=NOW - 12, finished_at=NOW),
            "Done in 12 s",
        ),
        (record(JobState.FAILED, user_error="No data yet."), "No data yet."),
        (
            record(JobState.FAILED, error="KeyError: 'x'", error_type="KeyError"),
            "This did not work. Nothing more was changed.",
        ),
        (record(JobState.DEAD), "This did not work. Nothing more was changed."),
    ],
)
def test_sentence(job: JobRecord, expected: str) -> None:
    assert said(job) == expected


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("c:me", "Stopped by you at 14:00 UTC"),
        ("link", "Stopped by you at 14:00 UTC"),
        ("operator", "Stopped by an operator at 14:00 UTC"),
        ("", "Stopped at 14:00 UTC"),
    ],
)
def test_cancelled_by_whom(by: str, expected: str) -> None:
    job = record(JobState.CANCELLED, owners=("c:me",), cancelled_by=by, finished_at=NOW)
    assert said(job) == expected


def test_only_the_developer_is_told_commands() -> None:
    job = record(JobState.QUEUED, queue="reports")
    assert said(job, waiting=Waiting("none")) == "Waiting. No worker is running"
    assert (
        said(job, waiting=Waiting("none"), debug=True)
        == "Waiting. No worker is running; start one with `flask offload worker`"
    )
    assert (
        said(job, waiting=Waiting("queue")) == "Waiting. No worker is running for this kind of job"
    )
    assert words.sentence(job, now=NOW, waiting=Waiting("queue"), debug=True)[-1] == Code(
        "flask offload worker -Q reports"
    )


def test_a_job_whose_worker_is_gone_does_not_seem_to_go_on() -> None:
    job = record(started_at=NOW - 9, progress=Progress(1, 3, "Reading"))
    text, more = words.lines(job, now=NOW, waiting=Waiting("lost"))
    assert plain(text, NOW).startswith("Interrupted: its worker stopped answering.")
    assert plain(more, NOW) == "1 of 3"


def running(done: float, total: float | None, *, after: float, message: str = "") -> JobRecord:
    """A job that spoke ``after`` seconds from its start, just now."""
    return record(
        started_at=NOW - after,
        progress=Progress(done, total, message),
        event_id=f"{int(NOW * 1000)}-0",
    )


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (running(7, 24, after=8), "7 of 24 · about 20 s left · 8 s so far"),
        (running(0, 24, after=8), "0 of 24 · 8 s so far"),
        (running(24, 24, after=8), "24 of 24 · 8 s so far"),
        (running(1, 1000, after=1), "1 of 1,000 · 1 s so far"),
        (running(3, None, after=125), "3 done · 2 min 5 s so far"),
        (running(0, None, after=125), "2 min 5 s so far"),
        (running(0.25, 1, after=10), "25% · about 30 s left · 10 s so far"),
        (running(1e-9, 2, after=10), "0.0 of 2 · 10 s so far"),
        (running(float("inf"), 2, after=10), "10 s so far"),
        (running(float("nan"), 2, after=10), "10 s so far"),
        (running(5, -1, after=10), "5 done · 10 s so far"),
    ],
)
def test_how_far(job: JobRecord, expected: str) -> None:
    assert plain(words.meta(job), NOW) == expected


def test_an_estimate_counts_down_and_vanishes_when_it_was_wrong() -> None:
    job = running(1, 2, after=10)
    meta = words.meta(job)
    assert plain(meta, NOW + 4) == "1 of 2 · about 10 s left · 14 s so far"
    assert plain(meta, NOW + 60) == "1 of 2 · 1 min 10 s so far"
    # It is the same instant at each look, so that a stream has nothing to send.
    assert words.meta(job) == meta


def test_a_list_has_no_room_for_what_matters_less() -> None:
    assert (
        plain(words.meta(running(7, 24, after=8), brief=True), NOW) == "7 of 24 · about 20 s left"
    )
    assert plain(words.meta(running(0, 24, after=8), brief=True), NOW) == "0 of 24 · 8 s so far"


LINE_WORDS = [
    (Waiting(), "Waiting in line"),
    (Waiting(place=1), "Next in line"),
    (Waiting(place=3, seconds=38), "3rd in line, about 40 s"),
    (Waiting(place=3, seconds=0), "3rd in line"),
    (Waiting(place=12, seconds=400), "12th in line, about 7 min"),
    (Waiting(place=12, seconds=1e7), "12th in line"),
    (Waiting("paused", 2), "Waiting. Jobs of this kind are paused for now · 2nd in line"),
    (Waiting("paused"), "Waiting. Jobs of this kind are paused for now"),
    (
        Waiting("rate", 1, limit="10/m"),
        "Waiting: no more than 10 of these may start in a minute",
    ),
    (Waiting("rate", 1, limit="5"), "Waiting: no more than 5 of these may start in a second"),
    (
        Waiting("unknown"),
        "Waiting. This kind of job is new; it starts once a worker knows it",
    ),
    (Waiting("lost"), "Waiting. The worker that was to start it stopped answering"),
]


@pytest.mark.parametrize(("waiting", "expected"), LINE_WORDS)
def test_in_line(waiting: Waiting, expected: str) -> None:
    assert said(record(JobState.QUEUED), waiting=waiting) == expected


def test_a_sentence_that_repeats_the_state_gives_way() -> None:
    text, more = words.lines(running(7, 24, after=8), now=NOW)
    assert plain(text, NOW) == "7 of 24 · about 20 s left · 8 s so far"
    assert not more
    text, more = words.lines(running(7, 24, after=8, message="Reading"), now=NOW)
    assert (text, len(more)) == (("Reading",), 5)


def test_notes() -> None:
    assert words.notes(record()) == []
    assert words.notes(record(attempt=2, max_attempts=5, deliveries=2)) == [
        "Attempt 2 of 5",
        "Started again because its worker stopped",
    ]
    assert words.notes(record(JobState.RETRYING, attempt=2)) == []


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (record(), "Working · Monthly report"),
        (record(progress=Progress(1, 3)), "33% · Monthly report"),
        (record(JobState.SUCCEEDED, progress=Progress(3, 3)), "Done · Monthly report"),
    ],
)
def test_title_of_the_document(job: JobRecord, expected: str) -> None:
    assert words.heading(job) == expected


def test_parts_for_the_script() -> None:
    parts = ("a", "", Moment(NOW, "clock"), Code("x"))
    assert parts_json(parts) == [
        "a",
        {"time": "2026-11-22T14:00:00.000Z", "as": "clock"},
        {"code": "x"},
    ]


def test_a_countdown_beyond_the_calendar() -> None:
    assert "9999" in (reading.iso(1e15) or "")
    assert said(record(JobState.SCHEDULED, due_at=1e15)).startswith("Starts at 31 Dec")


def test_every_state_has_words() -> None:
    for state in JobState:
        assert words.word(record(state))
        assert said(record(state))
