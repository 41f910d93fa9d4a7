"""What ``celery inspect`` tells of jobs that wait on the server."""

from __future__ import annotations

import typing as t
from pathlib import Path

from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System


def test_scheduled_shows_no_sensitive_argument(system: System) -> None:
    celery = system.app().extensions["offload"].celery
    system.worker("--pool", "threads", "--concurrency", "1")
    celery.tasks["sample.add"].options(delay=50).delay(1, b=2)
    celery.tasks["sample.log_in"].options(delay=60).delay("ada", password="hunter22")
    inspect = celery.control.inspect(timeout=5)
    (entries,) = wait_until(inspect.scheduled, 20).values()
    add, log_in = (entry["request"] for entry in entries)
    assert (add["name"], add["args"], add["kwargs"]) == ("sample.add", [1], {"b": 2})
    assert log_in["name"] == "sample.log_in"
    assert "hunter22" not in str(entries)


def test_scheduled_has_a_bound(system: System) -> None:
    celery = system.app().extensions["offload"].celery
    system.worker("--pool", "threads", "--concurrency", "1")
    add = celery.tasks["sample.add"]
    jobs = [add.options(delay=60 + number).delay(number) for number in range(105)]
    (entries,) = wait_until(celery.control.inspect(timeout=5).scheduled, 20).values()
    assert [entry["request"]["id"] for entry in entries] == [job.id for job in jobs[:100]]


def test_worker_answers_while_all_its_threads_are_busy(system: System, tmp_path: Path) -> None:
    celery = system.app().extensions["offload"].celery
    system.worker("--pool", "threads", "--concurrency", "1")
    ledger = tmp_path / "ledger"
    job = celery.tasks["sample.sleep"].delay(30, str(ledger))
    wait_until(ledger.exists)
    (active,) = wait_until(celery.control.inspect(timeout=2).active, 20).values()
    assert [request["id"] for request in active] == [job.id]
    job.cancel()
