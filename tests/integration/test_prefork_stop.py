"""A worker that is to end at once, while its processes have bundles."""

from __future__ import annotations

import signal
import typing as t
from pathlib import Path

import pytest

from bundles import ONE, PREFORK, Many, bundle_with_a_slow_one, tasks_of, words
from flask_offload._celery.lane.prefork import MOST

if t.TYPE_CHECKING:
    import servers
    from conftest import System

TWO = (*PREFORK, "2")
COUNT = 3_000
SIGNALS = {
    "quit": [signal.SIGQUIT],
    "term, quit": [signal.SIGTERM, signal.SIGQUIT],
    "int, int": [signal.SIGINT, signal.SIGINT],
    "term, term": [signal.SIGTERM, signal.SIGTERM],
}
#: A second SIGTERM changes nothing; the others end what runs.
WARM = "term, term"
HOW = pytest.mark.parametrize("how", list(SIGNALS))


def end(worker: servers.Process, how: str) -> None:
    for number in SIGNALS[how]:
        worker.signal(number)
    # A signal that comes while Celery reads a result ends that read, and the process that wrote
    # it waits for half a minute for somebody to read the rest.
    worker.popen.wait(45)
    # Nor does kombu like to be interrupted; what is ours must not be in a traceback.
    assert "/flask_offload/" not in worker.text


@HOW
def test_end_while_bundles_run(system: System, tmp_path: Path, how: str) -> None:
    first = system.worker(*TWO)
    many = Many(system, tmp_path / "ledger")
    many.add(COUNT)
    many.wait_for_start(COUNT // 4)
    end(first, how)
    assert many.started < COUNT
    system.worker(*TWO)
    # What a process had begun when it was ended is begun again.
    many.check(again=0 if how == WARM else 2 * MOST)
    many.check_nothing_is_held()


@HOW
def test_end_while_one_of_a_bundle_is_slow(system: System, tmp_path: Path, how: str) -> None:
    ledger = tmp_path / "ledger"
    sleep = tasks_of(system)["sample.sleep"]
    first = system.worker(*ONE)
    slow, rest = bundle_with_a_slow_one(sleep, ledger, before=10)
    end(first, how)
    system.worker(*ONE)
    for job in (slow, *rest):
        assert job.get(timeout=20) == "slept"
    assert {job.record.starts for job in rest} == {1}
    assert words(ledger).count("start") == len(rest)
    assert words(Path(f"{ledger}.slow")).count("end") == 1
