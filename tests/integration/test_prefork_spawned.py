"""A prefork pool whose processes are not forked, as on macOS: each imports the app for itself."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

import servers
from bundles import ONE, Many, tasks_of
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System

MACOS = {"SAMPLE_SPAWN": "1"}


def by_setting(system: System) -> None:
    system.worker(*ONE, "worker_pool_start_method=spawn")


def by_system(system: System) -> None:
    system.worker(*ONE, **MACOS)


def by_flask(system: System) -> None:
    """Of a factory: the app is no global of a module."""
    log = system.folder / "worker.log"
    env = {**system.env, **MACOS}
    process = servers.offload_worker("sample:create_app", log, *ONE, "-n", "w0@test", env=env)
    system.workers.append(process)
    wait_until(lambda: "ready." in process.text, 30, message=lambda: process.text)


@pytest.mark.parametrize("start", [by_setting, by_system, by_flask])
def test_processes_that_are_not_forked(
    system: System, tmp_path: Path, start: t.Callable[[System], None]
) -> None:
    start(system)
    tasks = tasks_of(system)
    job = tasks["sample.add"].delay(1, 2)
    assert job.get(timeout=30) == 3
    wait_until(lambda: "adding 1 2" in [line.text for line in job.app.store.logs(job.id)])
    assert job.record.worker.startswith("w0@test/")
    assert tasks["sample.shared"].delay().get(timeout=20) == "sample"
    many = Many(system, tmp_path / "ledger")
    many.add(100)
    many.check()
    many.check_nothing_is_held()
