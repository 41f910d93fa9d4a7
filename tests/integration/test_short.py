"""The short way through a job, and Celery's own: the same outcome, record and request."""

from __future__ import annotations

import json
import re
import typing as t
from pathlib import Path

import pytest

import servers
from flask_offload import JobState
from waiting import wait_until

if t.TYPE_CHECKING:
    from flask_offload import Job

#: What is known of each job; the tasks of all; and the log of the worker.
Seen = tuple[dict[str, dict[str, t.Any]], list[str], str]
CALLS: list[tuple[str, tuple[t.Any, ...], dict[str, t.Any]]] = [
    ("none", (), {}), ("value", (1, "ü", None), {"a": [1.5, {}]}), ("request", (), {}),
    ("fails", (), {}), ("refuses", (), {}), ("ignores", (), {}), ("rejects", (), {}),
    ("retries", (), {}), ("not_json", (), {}), ("too_large", (), {}), ("starts_another", (), {}),
    ("adds_a_callback", ("x",), {}), ("keeps_nothing", (), {}), ("prints", (), {}),
]  # fmt: skip
#: Not the same in two runs.
_VARIES = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[\d:.+]+|gen\d+@\S+?(?=')"
    r"|0x[0-9a-f]+"
)


def seen_of(job: Job) -> dict[str, t.Any]:
    """All that is known of a job that is over, but for what no two jobs share."""
    record = job.record
    meta = dict(job._get_task_meta())
    # The same error in the same task; the frames above it are those of the way it took.
    trace = str(meta.pop("traceback", "") or "")
    return {
        "meta": _VARIES.sub("·", json.dumps(meta, sort_keys=True, default=repr)).split(", "),
        "where": [line for line in trace.splitlines() if "short_app" in line],
        "ends": trace.splitlines()[-1:],
        "state": record.state,
        # That an attempt will be retried is told after the next one is out, which may be over.
        "error": record.state is JobState.SUCCEEDED
        or _VARIES.sub("·", repr((record.error, record.error_type, record.user_error))),
        "counts": (record.starts, record.attempt, record.log_lines, record.queue),
        "progress": record.progress,
        "timed": (record.started_at is not None, record.finished_at is not None),
    }


@pytest.fixture
def seen(
    valkey: servers.Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> t.Callable[..., Seen]:
    def run(**env: str) -> Seen:
        import importlib

        env |= {"OFFLOAD_URL": valkey.url, "OFFLOAD_NAMESPACE": f"s{len(env)}{tmp_path.name}"}
        for key, value in env.items():
            monkeypatch.setenv(key, value)
        import short_app

        short_app = importlib.reload(short_app)
        arguments = ("-n", "w@test", "--pool", "threads", "--concurrency", "2")
        log = tmp_path / f"log{len(env)}"
        worker = servers.worker("short_app.celery", log, *arguments, env=env)
        try:
            wait_until(lambda: "ready." in worker.text, 30, message=lambda: worker.text)
            tasks = short_app.celery.tasks
            jobs = {}
            for name, args, kwargs in CALLS:
                jobs[name] = job = tasks[f"short_app.{name}"].delay(*args, **kwargs)
                wait_until(lambda job=job: job.record.state.finished, message=lambda: worker.text)
            newest = [record.task for record in short_app.offload.control.newest(limit=50)]
            found = {name: seen_of(job) for name, job in jobs.items()}
        finally:
            worker.stop()
        return found, sorted(newest), worker.text

    return run


def test_short_way_is_celerys(seen: t.Callable[..., Seen]) -> None:
    short, short_all, short_log = seen()
    long, long_all, long_log = seen(LONG_WAY="1")
    for name in long:
        for what in long[name]:
            assert short[name][what] == long[name][what], (name, what)
    assert short_all == long_all
    assert short["value"]["state"] is JobState.SUCCEEDED
    assert short["fails"]["where"]
    # What the log says of each job, in order, but for the seconds that it took.
    lines = [_told(log) for log in (short_log, long_log)]
    assert lines[0] == lines[1]
    assert len(lines[0]) > 2 * len(CALLS)
    # The way is told by the traceback.
    assert "_celery/lane/short.py" in short_log
    assert "_celery/lane/short.py" not in long_log


def _told(log: str) -> list[str]:
    """What Celery says of jobs, in the order of each."""
    told = re.findall(r"Task short_app\.\w+\[.*", log)
    # A job that another one enqueues has its lines among that one's.
    return sorted(re.sub(r"in [\d.e-]+s", "", _VARIES.sub("·", line)) for line in told)
