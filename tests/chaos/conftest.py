"""One laboratory a test; the columns and the scale come from the environment."""

from __future__ import annotations

import os
import typing as t
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab import Lab
from rows import ROWS

import servers
from results import Result

#: 1 is the table as it is promised; a twentieth of the counts fits into CI.
SCALE = float(os.environ.get("CHAOS_SCALE") or 0.05)
COLUMNS = (os.environ.get("CHAOS_COLUMNS") or "ours:prefork").split()
SEED = int(os.environ.get("CHAOS_SEED") or 20261122)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(180 if SCALE < 1 else 3600))


class Bench:
    """Makes laboratories, and keeps the results of one row."""

    def __init__(self, folder: Path, server: servers.Valkey, column: str) -> None:
        self.column = column
        self.ours = column.startswith("ours")
        self.pool = column.partition(":")[2]
        self.scale = SCALE
        self.server = server
        self._folder = folder
        self._labs: list[Lab] = []

    def count(self, whole: int, least: int = 1) -> int:
        """A count of the table, at this scale."""
        return max(least, round(whole * self.scale))

    def lab(self, lease: float = 2.0, **env: str) -> Lab:
        folder = self._folder / f"lab{len(self._labs)}"
        folder.mkdir()
        self._labs.append(Lab(folder, self.server, self.column, lease, SEED))
        self._labs[-1].env.update(env)
        return self._labs[-1]

    @contextmanager
    def row(self, number: int) -> t.Iterator[Result]:
        """Measure one row. On the stock transport broken promises are the result, not an error."""
        result = Result(number, *ROWS[number], self.column, self.scale)
        print(f"row {number}, {self.column}, scale {self.scale:g}, seed {SEED}, {self._folder}")
        try:
            yield result
        except BaseException as error:
            result.broken.append(f"{type(error).__name__}: {str(error)[:200]}")
            raise
        finally:
            result.write()
        print(result.numbers)
        if self.ours and result.broken:
            pytest.fail(
                f"row {number}: {'; '.join(result.broken)}\n{result.numbers}\n{self._folder}",
                pytrace=False,
            )

    def settle(self, lab: Lab, result: Result, timeout: float = 60, **drain: t.Any) -> None:
        """Drain, count, and hold the counts against what every row promises."""
        drained = lab.drain(timeout, **drain)
        tally = lab.tally
        result.note(
            confirmed=len(tally.confirmed),
            refused=len(tally.refused),
            lost=len(tally.lost),
            extra_starts=len(tally.extra),
            unexplained=len(tally.unexplained),
        )
        result.promise(drained, "did not drain")
        result.promise(not tally.lost, f"lost {sorted(tally.lost)[:5]}")
        result.promise(not tally.unexplained, f"unexplained starts {tally.unexplained[:2]}")
        result.promise(not tally.refused_ran, f"refused, but ran: {sorted(tally.refused_ran)[:5]}")
        result.promise(not tally.twice, f"one wish, two jobs: {tally.twice[:5]}")
        if drained:
            # Row 19, after every drain.
            left = lab.leaks()
            result.note(left_over=len(left))
            result.promise(not left, f"left over {left[:5]}")

    def close(self) -> None:
        for lab in self._labs:
            lab.close()


@pytest.fixture(params=COLUMNS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> t.Iterator[Bench]:
    with servers.valkey(arguments=["--appendfsync", "always"]) as server:
        bench = Bench(tmp_path, server, request.param)
        try:
            yield bench
        finally:
            bench.close()
