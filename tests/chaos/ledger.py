"""The ledger: what really happened, written outside the server by those to whom it happened.

One append-only file. Every line is one event, written in one call, so that a SIGKILL leaves whole
lines only. Times are of the machine's monotonic clock, which all processes share, and which a
shifted wall clock does not change.
"""

from __future__ import annotations

import json
import os
import time
import typing as t
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Fault", "Ledger", "Run", "Tally", "percentile"]

#: A job whose last line was written this long before a fault may not have been acknowledged yet:
#: it was still in flight.
SETTLE = 0.2


class Ledger:
    """Writes events, and counts them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._rest = b""
        self._tally = Tally()

    def note(self, kind: str, token: str = "", **more: t.Any) -> None:
        """Write one line.

        :param kind: ``try``, ``confirmed``, ``refused`` and ``unknown`` of a producer; ``start``,
            ``end``, ``effect`` and ``stale`` of a task; ``fault`` of the laboratory.
        :param token: Names one wish of a producer; not the id of its job, so that two jobs which
            were made of one wish are seen.
        """
        event = {"kind": kind, "token": token, "at": time.monotonic(), "pid": os.getpid(), **more}
        # Opened each time: a forked child has no file of its parent's.
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, json.dumps(event).encode() + b"\n")
        finally:
            os.close(file)

    def tally(self) -> Tally:
        """All counts so far. Reads what is new since the last call."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
            self._offset += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._tally.add(json.loads(line))
        return self._tally


@dataclass
class Run:
    """One start of a job, and its end if there was one."""

    token: str
    id: str
    job: str
    worker: str
    start: float
    pid: int
    end: float | None = None

    def in_flight(self, at: float, until: float | None = None) -> bool:
        over = self.end is not None and self.end < at - SETTLE
        return self.start <= (until or at) and not over


@dataclass
class Fault:
    """Something that the laboratory did.

    :param worker: To whom; ``*`` for all that run.
    """

    what: str
    worker: str
    at: float
    until: float

    def hit(self, run: Run) -> bool:
        return self.worker in ("*", run.worker) and run.in_flight(self.at, self.until)


@dataclass
class Tally:
    """Counts of events, by token."""

    tried: dict[str, float] = field(default_factory=dict)
    confirmed: dict[str, str] = field(default_factory=dict)
    confirmed_at: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    effects: Counter[str] = field(default_factory=Counter)
    stale: Counter[str] = field(default_factory=Counter)
    runs: dict[str, list[Run]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    completed: dict[str, float] = field(default_factory=dict)
    _open: dict[str, Run] = field(default_factory=dict)

    def add(self, event: dict[str, t.Any]) -> None:
        kind, token, at = event["kind"], event["token"], event["at"]
        match kind:
            case "try":
                self.tried[token] = at
            case "confirmed":
                self.confirmed[token] = event["job"]
                self.confirmed_at[token] = at
            case "refused":
                self.refused[token] = event["why"]
            case "unknown":
                self.unknown[token] = event["why"]
            case "start":
                run = Run(token, event["run"], event["job"], event["worker"], at, event["pid"])
                self.runs.setdefault(token, []).append(run)
                self._open[run.id] = run
            case "end":
                self._open.pop(event["run"]).end = at
                self.completed.setdefault(token, at)
            case "effect":
                self.effects[token] += 1
            case "stale":
                self.stale[token] += 1
            case "fault":
                until = event.get("until") or at
                self.faults.append(
                    Fault(event["what"], event["worker"], event.get("since") or at, until)
                )

    @property
    def open_ended(self) -> set[str]:
        """Tried, and no outcome noted: the producer died, or is at it."""
        return set(self.tried) - set(self.confirmed) - set(self.refused)

    @property
    def lost(self) -> set[str]:
        """Confirmed, and never completed."""
        return set(self.confirmed) - set(self.completed)

    @property
    def refused_ran(self) -> set[str]:
        """Refused, which says that it will not run, and started all the same."""
        return set(self.refused) & set(self.runs)

    @property
    def starts(self) -> int:
        return sum(len(runs) for runs in self.runs.values())

    @property
    def extra(self) -> list[tuple[Run, Run]]:
        """Each start beyond the first of its token, after the one before it."""
        return [
            pair
            for runs in self.runs.values()
            for pair in zip(runs, sorted(runs, key=lambda run: run.start)[1:], strict=False)
        ]

    @property
    def unexplained(self) -> list[tuple[Run, Run]]:
        """The extra starts whose run before was not in flight at any fault."""
        return [
            (before, after)
            for before, after in self.extra
            if not any(fault.hit(before) and fault.at <= after.start for fault in self.faults)
        ]

    @property
    def hit(self) -> int:
        """How many runs were in flight at the faults: the most extra starts that are fair."""
        return sum(
            fault.hit(r) for fault in self.faults for runs in self.runs.values() for r in runs
        )

    @property
    def twice(self) -> list[str]:
        """Tokens that became more than one job."""
        return [token for token, runs in self.runs.items() if len({run.job for run in runs}) > 1]


def percentile(values: t.Iterable[float], share: float) -> float:
    """The value that ``share`` of the values do not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
