"""The log of a worker with a lane is the one that Celery writes."""

from __future__ import annotations

import json
import re
import signal
import typing as t

import pytest

import servers
from waiting import wait_until

if t.TYPE_CHECKING:
    from pathlib import Path

    from conftest import System

POOLS = pytest.mark.parametrize("pool", ["threads", "solo", "prefork"])
JOBS = 300
WORDS = "received", "speaking", "succeeded"


def work(system: System, name: str, pool: str, **env: str) -> tuple[list[str], list[str]]:
    """What a worker writes that has the jobs of one call to do, and is told to end at once."""
    tasks = system.app().extensions["offload"].celery.tasks
    jobs = tasks["sample.total"].enqueue_many([([n],) for n in range(JOBS)])
    spoken = tasks["sample.total"].app.send_task("log.speak", ("hello",))
    path = system.folder / f"{name}.log"
    worker = servers.worker(
        "log_app.celery", system.folder / f"{name}.out", "--pool", pool, "--concurrency", "4",
        "--logfile", str(path), "-n", f"{name}@test", env=system.env | env,
    )  # fmt: skip
    system.workers.append(worker)
    wait_until(
        lambda: spoken.ready() and all(job.ready() for job in jobs), 40, 0.1,
        message=lambda: worker.text,
    )  # fmt: skip
    worker.signal(signal.SIGTERM)
    worker.popen.wait(30)
    ids = [*(str(job.id) for job in jobs), str(spoken.id)]
    return once(path.read_text().splitlines()), ids


def once(lines: list[str]) -> list[str]:
    """Without what is received again: on a busy machine, a job may be given back that waited."""
    seen: set[str] = set()
    found = []
    for line in lines:
        told = re.search(r"\[[0-9a-f-]{36}\] received$", line)
        if told is None or told[0] not in seen:
            found.append(line)
        if told is not None:
            seen.add(told[0])
    return found


def plain(lines: list[str]) -> list[str]:
    """Lines about jobs, in an order of their own, without what differs from run to run."""
    found = [line for line in lines if "Task sample.total" in line or "speaking" in line]
    for pattern, word in [
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", "<time>"),
        (r"[0-9a-f]{8}-[0-9a-f-]{27}", "<id>"),
        (r"succeeded in \d+\.\d+(e-\d+)?s", "succeeded in <some>s"),
        (r"^\d{9,}", "<pid>"),
        (r"ForkPoolWorker-\d", "ForkPoolWorker-<n>"),
    ]:
        found = [re.sub(pattern, word, line) for line in found]
    return sorted(found)


@POOLS
@pytest.mark.parametrize(
    "conf",
    [
        {},
        {
            "worker_log_format": "%(levelname)-9s %(name)s [%(asctime)s] %(message)s",
            "worker_task_log_format": "%(task_name)s(%(task_id)s): %(message)s",
        },
    ],
    ids=["default", "custom"],
)
def test_the_lines_are_those_of_celery(system: System, pool: str, conf: dict[str, str]) -> None:
    env = {"LOG_CONF": json.dumps(conf)}
    ours, ids = work(system, "ours", pool, **env)
    stock, _ = work(system, "stock", pool, LOG_STOCK="1", **env)
    assert plain(ours) == plain(stock)
    assert len(plain(ours)) == 2 * JOBS + 1
    # Each job's in their order, and none is missing after an end as it should be.
    for job in ids:
        mine = [line for line in ours if job in line or (job == ids[-1] and "speaking" in line)]
        words = [word for line in mine for word in WORDS if f" {word}" in line]
        assert words == [word for word in WORDS if word != "speaking" or job == ids[-1]]


@POOLS
def test_a_handler_of_the_user_sees_each_record_with_its_data(
    system: System, tmp_path: Path, pool: str
) -> None:
    ledger = tmp_path / "ledger"
    lines, ids = work(system, "ours", pool, LOG_LEDGER=str(ledger))
    seen = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert len(plain(lines)) == 2 * JOBS + 1
    done = {each["data"]["id"]: each for each in seen if each["func"] == "info"}
    got = {each["data"]["id"] for each in seen if " received" in each["message"]}
    assert set(done) == got == set(ids)
    for number, job in enumerate(ids[:-1]):
        data = done[job]["data"]
        assert data["name"] == "sample.total"
        assert (data["args"], data["return_value"]) == (f"[[{number}]]", str(number))
