"""What tests of prefork bundles share: one out of many in a process, and many that all must run."""

from __future__ import annotations

import typing as t
from collections import Counter
from pathlib import Path

from flask_offload import JobState
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System

PREFORK = ("--pool", "prefork", "--concurrency")
ONE = (*PREFORK, "1")


def words(ledger: Path) -> list[str]:
    return ledger.read_text().split() if ledger.exists() else []


def tasks_of(system: System) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", system.app().extensions["offload"].celery.tasks)


def children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def get_known(sleep: t.Any) -> None:
    """Have a worker learn that a task is quick."""
    for job in sleep.enqueue_many([(0,)] * 60):
        job.get(timeout=20)


def bundle_with_a_slow_one(
    sleep: t.Any, ledger: Path, before: int = 0, seconds: float = 5
) -> tuple[t.Any, list[t.Any]]:
    """Of a task that is known to be quick, so that one process gets several; then one is slow."""
    get_known(sleep)
    quick = [(0, str(ledger))] * 30
    jobs = sleep.enqueue_many([*quick[:before], (seconds, f"{ledger}.slow"), *quick[before:]])
    slow = jobs.pop(before)
    wait_until(lambda: words(Path(f"{ledger}.slow")) == ["start"])
    return slow, jobs


def finished(job: t.Any) -> t.Any:
    """The record of a job that is over, or nothing."""
    record = job.record
    return record if record.state.finished else None


class Many:
    """Quick jobs, which bundles are made of, and what became of them.

    :param ledger: Where each writes a word of its own when it starts.
    """

    def __init__(self, system: System, ledger: Path) -> None:
        self._note = tasks_of(system)["sample.note"]
        self._ledger = ledger
        self.store = self._note.app.store
        self.control = self._note.app.control
        self.jobs: list[t.Any] = []
        self._checked = 0

    def add(self, count: int, **options: t.Any) -> list[t.Any]:
        task = self._note.options(**options) if options else self._note
        first = len(self.jobs)
        with self._note.app.engine.together():
            more = [task.delay(str(self._ledger), f"n{first + n}") for n in range(count)]
        self.jobs += more
        return more

    @property
    def started(self) -> int:
        return len(words(self._ledger))

    def wait_for_start(self, count: int) -> None:
        wait_until(lambda: self.started >= count, 30, 0.01)

    def check(self, *, again: int = 0) -> None:
        """That all have run once, and that their records say so.

        :param again: How many may have been started once more, where their process was killed.
        """
        self.wait_for_start(len(self.jobs))
        ids = [job.id for job in self.jobs[self._checked :]]

        def ends() -> Counter[tuple[str, int]]:
            return Counter((record.state, record.starts) for record in self.store.get_many(ids))

        def is_over() -> bool:
            found = ends()
            more = sum(n for (_, starts), n in found.items() if starts > 1)
            states = {state for state, _ in found}
            return found.total() == len(ids) and states == {JobState.SUCCEEDED} and more <= again

        wait_until(is_over, 30, 0.2, lambda: f"{ends()}")
        started = Counter(words(self._ledger))
        assert set(started) == {f"n{n}" for n in range(len(self.jobs))}
        assert started.total() - len(started) <= again
        self._checked = len(self.jobs)

    def check_nothing_is_held(self) -> None:
        """That no worker believes to have a job still."""

        def held() -> list[t.Any]:
            inspect = self.control.inspect(timeout=2)
            answers = [inspect.active() or {}, inspect.reserved() or {}]
            return [job for answer in answers for jobs in answer.values() for job in jobs]

        wait_until(lambda: not held(), 20, message=lambda: f"{held()}")
