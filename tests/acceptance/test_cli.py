"""The commands, as they are typed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

import servers
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System

HERE = Path(__file__).resolve().parents[1]


def flask(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "sample", *arguments],
        cwd=HERE, env=servers.environment(system.env), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def started(system: System, name: str, *arguments: str) -> servers.Process:
    process = servers.Process(
        sys.executable, "-m", "flask", "--app", "sample", *arguments,
        log=system.folder / f"{name}.log", env=system.env, cwd=HERE,
    )  # fmt: skip
    system.workers.append(process)
    return process


def test_help_lists_the_commands_and_a_wrong_one_is_refused(system: System) -> None:
    listed = flask(system, "offload", "--help").stdout.partition("Commands:\n")[2]
    names = [line.split()[0] for line in listed.splitlines()]
    assert names == ["acl", "adopt", "dev", "doctor", "jobs", "worker"]
    for name in names:
        done = flask(system, "offload", name, "--help")
        assert done.returncode == 0, done.stderr
        assert f"offload {name}" in done.stdout
    done = flask(system, "offload", "jbos")
    assert done.returncode == 2
    assert "No such command 'jbos'" in done.stderr


def test_worker_runs_jobs(system: System) -> None:
    process = started(system, "worker", "offload", "worker", "-P", "threads", "-Q", "celery,slow")
    wait_until(lambda: "ready." in process.text, 30, message=lambda: process.text)
    add = system.app().extensions["offload"].celery.tasks["sample.add"]
    assert add.options(queue="slow").delay(1).get(timeout=20) == 2
    assert process.stop() == 0


#: A worker of this app fails as it starts.
BROKEN = """
import sample
from celery.bootsteps import StartStopStep

app = sample.create_app()
celery = app.extensions["offload"].celery


class Broken(StartStopStep):
    requires = {"celery.worker.components:Pool"}

    def start(self, worker):
        raise OSError("broken")


celery.steps["worker"].add(Broken)
"""


@pytest.mark.parametrize("command", ["flask --app broken offload", "celery -A broken.celery"])
def test_worker_that_fails_says_so_by_its_exit_code(system: System, command: str) -> None:
    (system.folder / "broken.py").write_text(BROKEN)
    path = os.pathsep.join([str(system.folder), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-m", *command.split(), "worker", "-P", "threads"],
        cwd=HERE, env=servers.environment(system.env | {"PYTHONPATH": path}),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "OSError('broken')" in run.stderr
    assert run.returncode == 1


def test_worker_with_an_option_that_there_is_not(system: System) -> None:
    run = flask(system, "offload", "worker", "--colour", "red")
    assert run.returncode == 2
    assert "No such option" in run.stderr


def test_jobs_list_cancel_retry(system: System) -> None:
    assert flask(system, "offload", "jobs", "list").stdout == "No jobs yet.\n"
    job = system.app().extensions["offload"].celery.tasks["sample.add"].delay(1, 2)
    (line,) = flask(system, "offload", "jobs", "list").stdout.splitlines()
    assert re.fullmatch(rf"queued     {job.id} +\d+ s  Add 1 and 2", line)
    assert len(line) <= 80
    assert (
        flask(system, "offload", "jobs", "cancel", job.id).stdout == "Cancelled; it was queued.\n"
    )
    again = flask(system, "offload", "jobs", "cancel", job.id).stdout
    assert again == "It is cancelled and stays so.\n"
    new = flask(system, "offload", "jobs", "retry", job.id).stdout.strip()
    assert len(flask(system, "offload", "jobs", "list").stdout.splitlines()) == 2
    assert new != job.id


def test_unknown_job_and_server_away_are_one_line(system: System) -> None:
    for verb in ("cancel", "retry"):
        result = flask(system, "offload", "jobs", verb, "nobody")
        assert result.returncode == 1
        assert result.stderr.startswith("Error: No job has the id 'nobody'.")
    system.env["OFFLOAD_URL"] = f"redis://127.0.0.1:{servers.free_port()}"
    result = flask(system, "offload", "jobs", "list")
    assert result.returncode == 1
    assert result.stderr.startswith("Error: The server of OFFLOAD_URL is away")
    assert "Traceback" not in result.stderr


def test_app_without_the_extension(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
    result = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "plain", "offload", "worker"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "does not use Flask-Offload" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dev_runs_web_and_worker_and_stops_both(system: System, number: int) -> None:
    port = servers.free_port()
    process = started(system, "dev", "offload", "dev", "--port", str(port))
    wait_until(lambda: "ready." in process.text, 30, message=lambda: process.text)
    wait_until(lambda: f"Running on http://127.0.0.1:{port}" in process.text)
    control = system.app().extensions["offload"].control
    assert len(control.workers()) == 1
    process.signal(number)
    assert process.popen.wait(20) == 0
    assert control.workers() == []
    with pytest.raises(ConnectionRefusedError):
        servers.connect(port)


def test_dev_replaces_a_worker_that_dies(system: System) -> None:
    process = started(system, "dev", "offload", "dev", "--port", str(servers.free_port()))
    control = system.app().extensions["offload"].control
    wait_until(lambda: len(control.workers()) == 1, 30, message=lambda: process.text)
    first = control.workers()[0]
    # Not in its first seconds, in which an end counts as a fault of the app.
    wait_until(lambda: control.store.call("TIME")[0] > str(int(first.started_at) + 6), 15)
    servers.kill(first.pid)
    wait_until(
        lambda: {w.pid for w in control.workers()} - {first.pid}, 40, message=lambda: process.text
    )
    # A kill would leave what it has started.
    assert process.stop() == 0
