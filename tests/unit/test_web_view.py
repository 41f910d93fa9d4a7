"""The JSON of a job, and how its result is shown."""

from __future__ import annotations

import json
import typing as t

import pytest

from flask_offload._jobs import JobRecord, JobState, LogLine, Progress
from flask_offload._web.links import Links
from flask_offload._web.result import SHOWN, result_of
from flask_offload._web.view import Seen, dumps, job_json, log_json

LINKS = Links("/jobs/id")
PDF = {"name": "r ü.pdf", "size": 84_000, "content_type": "application/pdf"}


def done(result: t.Any, **fields: t.Any) -> JobRecord:
    return JobRecord("id", "app.report", JobState.SUCCEEDED, result=result, **fields)


def test_nothing_inward_leaves() -> None:
    record = JobRecord(
        "id",
        "app.secret_path",
        JobState.FAILED,
        owners=("u:7", "c:browser"),
        args=["ada"],
        kwargs={"password": "•••"},
        worker="w1@host",
        error="KeyError: 'secret'",
        error_type="KeyError",
        traceback="Traceback …",
        request_id="r1",
    )
    text = json.dumps(job_json(record, LINKS, Seen(1.0)))
    for word in ("secret", "u:7", "browser", "ada", "password", "w1@host", "KeyError", "Trace"):
        assert word not in text
    assert job_json(record, LINKS, Seen(1.0))["error"].startswith("This did not work.")


def test_fields_of_a_running_job() -> None:
    record = JobRecord(
        "id", "app.report", JobState.RUNNING, created_at=1, progress=Progress(1, 4, "Reading")
    )
    job = job_json(record, LINKS, Seen(60))
    assert (job["state"], job["celery_state"]) == ("running", "STARTED")
    assert job["progress"] == {"done": 1, "total": 4, "fraction": 0.25}
    assert job["created_at"] == "1970-01-01T00:00:01.000Z"
    assert (job["started_at"], job["result"], job["error"]) == (None, None, None)
    assert (job["url"], job["cancel_url"]) == ("/jobs/id", "/jobs/id/cancel")


def test_what_is_over_cannot_be_stopped() -> None:
    assert job_json(done(1), LINKS, Seen(60))["cancel_url"] is None


def test_links_carry_the_key_of_a_client_without_cookies() -> None:
    job = job_json(done(1, files=(PDF,)), Links("/jobs/id", "k&y"), Seen(60))
    assert job["url"] == "/jobs/id?key=k%26y"
    assert job["files"][0]["url"] == "/jobs/id/files/r%20%C3%BC.pdf?key=k%26y"


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, "", ""),
        ("", "", ""),
        ({}, "", ""),
        ("Sent.", "text", "Sent."),
        (42, "text", "42"),
        (0, "text", "0"),
        (False, "text", "false"),
        ({"a": "ü"}, "json", '{\n  "a": "ü"\n}'),
        ([1], "json", "[\n  1\n]"),
        ("https://example.org/x?y=1", "link", "https://example.org/x?y=1"),
        ("https://example.org and more", "text", "https://example.org and more"),
        ("https://", "text", "https://"),
        ("http://[", "text", "http://["),
        ("javascript:alert(1)", "text", "javascript:alert(1)"),
        ("https://a\nb", "text", "https://a\nb"),
        ({"name": "other.pdf"}, "json", '{\n  "name": "other.pdf"\n}'),
        ({"name": ["r"]}, "json", '{\n  "name": [\n    "r"\n  ]\n}'),
    ],
)
def test_how_a_result_is_shown(value: t.Any, kind: str, text: str) -> None:
    shown = result_of(done(value, files=(PDF,)), LINKS)
    assert (shown.kind, shown.text) == (kind, text)


def test_a_file_as_the_result() -> None:
    record = done(PDF, files=(PDF, PDF | {"name": "b.csv"}))
    shown = result_of(record, LINKS)
    assert (shown.kind, shown.url, shown.size) == ("pdf", "/jobs/id/files/r%20%C3%BC.pdf", "84 KB")
    job = job_json(record, LINKS, Seen(60))
    assert [file["name"] for file in job["files"]] == ["r ü.pdf", "b.csv"]


def test_a_long_result_is_cut_and_led_to() -> None:
    shown = result_of(done("x" * (SHOWN + 1)), LINKS)
    assert len(shown.text) < SHOWN + 10
    assert shown.whole == "/jobs/id?format=json"
    assert not result_of(done("x" * SHOWN), LINKS).whole


def test_only_success_has_a_result() -> None:
    record = JobRecord("id", "app.report", JobState.FAILED, result="half")
    assert result_of(record, LINKS).kind == ""
    assert job_json(record, LINKS, Seen(1))["result"] is None


def test_json_that_every_parser_reads() -> None:
    value = {"a": [float("nan"), 1.5], "b": float("-inf"), "c": "\ud800"}
    assert json.loads(dumps(value)) == {"a": [None, 1.5], "b": None, "c": "\ud800"}
    assert "\n" not in dumps({"a": "x\r\n\u2028y"})


def test_log_lines() -> None:
    assert log_json([LogLine(3, 1.5, "hello")]) == [
        {"seq": 3, "at": "1970-01-01T00:00:01.500Z", "text": "hello"}
    ]
