"""What is shown of a job: the JSON that clients get, and what the page makes of it. Pure."""

from __future__ import annotations

import json
import math
import typing as t
from dataclasses import asdict, dataclass
from urllib.parse import quote, urlencode, urlsplit

from .._jobs import JobRecord, JobState, LogLine
from . import words
from .reading import iso, size
from .sentences import parts_json, plain

__all__ = ["Links", "Result", "dumps", "job_json", "log_json", "response_url", "result_of"]

#: Characters of a result that a page shows; the rest is a click away.
SHOWN = 20_000


@dataclass(frozen=True, slots=True)
class Links:
    """The addresses of one job.

    :param page: Path of its page.
    :param key: The job-bound key of a client that came by it and keeps no cookie.
    """

    page: str
    key: str = ""

    def to(self, path: str = "", **query: str) -> str:
        """An address below the page; it carries the key, if there is one."""
        query = query | ({"key": self.key} if self.key else {})
        return self.page + path + (f"?{urlencode(query)}" if query else "")

    def file(self, name: str) -> str:
        """The address of a file."""
        return self.to(f"/files/{quote(name, safe='')}")


@dataclass(frozen=True, slots=True)
class Result:
    """How a page shows a result.

    :param kind: ``text``, ``link``, ``file`` or ``json``; empty where there is nothing to show.
    :param text: What to show; of a file, its name.
    :param url: Where a link or file leads.
    :param size: Of a file, in words.
    :param whole: Address of the whole result, where ``text`` had to be cut.
    """

    kind: t.Literal["text", "link", "file", "json", ""] = ""
    text: str = ""
    url: str = ""
    size: str = ""
    whole: str = ""


def job_json(
    record: JobRecord,
    links: Links,
    *,
    now: float,
    waiting_for: str = "",
    debug: bool = False,
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
        ``none`` (no worker runs), ``queue`` (none takes jobs of its queue), ``lost`` (its worker
        stopped answering), else empty.
    ``url``, ``cancel_url``
        Its page, and where to POST to stop it; the second is null when there is nothing to stop.
    ``response_url``
        Of a background view that is over: its response, where the page moves on to; else null.
    ``now``
        The time of the answer.
    ``view``
        What our own page needs on top. It may change in any release.
    """
    finished = record.state.finished
    progress = record.progress
    succeeded = record.state is JobState.SUCCEEDED
    end = words.expected_end(record) if record.state is JobState.RUNNING else None
    text = words.sentence(record, now=now, waiting_for=waiting_for, debug=debug)
    line, second_line = words.lines(record, now=now, waiting_for=waiting_for, debug=debug)
    result = result_of(record, links)
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
        "result": record.result if succeeded else None,
        "error": words.failure(record) if finished and words.word(record) == "Failed" else None,
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
        "waiting_for": waiting_for,
        "url": links.to(),
        "cancel_url": None if finished or record.cancel_requested else links.to("/cancel"),
        "response_url": response_url(record, links),
        "now": iso(now),
        "view": {
            "heading": words.heading(record),
            "word": words.word(record),
            "text": parts_json(line),
            "meta": parts_json(second_line),
            "notes": words.notes(record),
            "result": asdict(result),
            "files": [
                {"name": f["name"], "url": links.file(f["name"]), "size": size(f["size"])}
                for f in record.files
                if result.kind != "file" or result.text != f["name"]
            ],
        },
    }


def response_url(record: JobRecord, links: Links) -> str | None:
    """The address of the response of a background view that is over."""
    if not record.state.finished or record.response is None:
        return None
    return links.to("/response")


def log_json(lines: t.Iterable[LogLine]) -> list[dict[str, t.Any]]:
    """Log lines as JSON: ``seq`` (from 1), ``at`` and ``text`` of each."""
    return [{"seq": line.seq, "at": iso(line.at), "text": line.text} for line in lines]


def result_of(record: JobRecord, links: Links) -> Result:
    """How to show the result of a job that succeeded."""
    value = record.result
    if record.state is not JobState.SUCCEEDED or value is None or value in ("", [], {}):
        return Result()
    if isinstance(value, str):
        if _is_link(value):
            return Result("link", value, value)
        return _cut("text", value, links)
    if isinstance(value, dict):
        for file in record.files:
            if value.get("name") == file["name"]:
                return Result("file", file["name"], links.file(file["name"]), size(file["size"]))
    if isinstance(value, dict | list):
        return _cut("json", json.dumps(value, indent=2, ensure_ascii=False), links)
    return Result("text", json.dumps(value))


def _cut(kind: t.Literal["text", "json"], text: str, links: Links) -> Result:
    if len(text) <= SHOWN:
        return Result(kind, text)
    return Result(kind, text[:SHOWN] + " …", whole=links.to(format="json"))


def _is_link(value: str) -> bool:
    if not value.startswith(("http://", "https://")) or len(value) > 2_000:
        return False
    # A space or control character in it: a text that begins with an address.
    if not value.isprintable() or " " in value:
        return False
    try:
        return bool(urlsplit(value).hostname)
    except ValueError:
        return False


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
