"""What the parts share: the settings of a run, taking turns, waiting, percentiles."""

from __future__ import annotations

import os
import statistics
import sys
import time
import typing as t
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..processes import BenchError, Client, Workers
from ..server import Reading, Server
from ..sides import PEERS, SIDES, Side, environment

__all__ = ["Bench", "Row", "Table", "by", "find", "middle", "percentile", "span", "take_turns"]

Row = dict[str, t.Any]


class Table(t.NamedTuple):
    """One table of the report."""

    title: str
    head: list[str]
    lines: list[list[str]]
    note: str = ""


@dataclass
class Bench:
    """One run.

    :param jobs: Jobs a round, before the weight of a side.
    :param peers: Which peers take part.
    :param long: Whether the form that takes hours was asked for.
    """

    server: Server
    jobs: int
    rounds: int
    backlog: int
    peers: set[str]
    long: bool
    failures: list[str] = field(default_factory=list)

    @property
    def stamps(self) -> Path:
        return self.server.folder / "stamps.txt"

    def sides(self, *wanted: str) -> list[Side]:
        """Those that take part, of all or of ``wanted`` names."""
        sides = [find(name) for name in wanted] or SIDES
        return [side for side in sides if side.peer in self.peers]

    def reset(self) -> None:
        self.server.reset()
        self.stamps.write_text("")

    def client(self, peer: str, verb: str, **arguments: t.Any) -> Client:
        env = environment(self.server.url, self.stamps)
        log = self.server.folder / "client.err"
        return Client(PEERS[peer].module, verb, env, log, **arguments)

    def workers(self, side: Side, **more: str) -> Workers:
        env = environment(self.server.url, self.stamps, side.env | more)
        return Workers(side.start(self.server.url), env, self.server.folder / "worker.out")

    def fill(self, side: Side, jobs: int) -> None:
        with self.client(side.peer, "fill", jobs=jobs) as client:
            client.go(timeout=60 + jobs / 200)

    def wait_done(
        self, side: Side, workers: Workers, jobs: int, least: int, *, timeout: float = 180
    ) -> tuple[float, int]:
        """Wait until ``least`` of ``jobs`` are over: the moment, and how many are."""
        peer, client, until = PEERS[side.peer], self.server.client, time.monotonic() + timeout
        sure = False
        while True:
            found = peer.done(client, jobs)
            now = time.perf_counter()
            # A stock message is nowhere for a moment, between fetch and note: look twice.
            if found >= least and (sure or found < jobs):
                return now, found
            sure = found >= least
            if not sure:
                workers.check()
                if time.monotonic() > until:
                    text = f"{found} of {jobs} jobs were over after {timeout:.0f} s"
                    raise BenchError(f"{text}: {workers.tail()}")
                time.sleep(0.01)

    def spent(self, side: Side, workers: Workers, jobs: int) -> tuple[float, Reading, float]:
        """What has been spent: jobs that are over, the server's counters, the workers' time."""
        before = PEERS[side.peer].done(self.server.client, jobs)
        reading, cpu = self.server.read(), workers.cpu()
        after = PEERS[side.peer].done(self.server.client, jobs)
        # It goes on while this looks.
        return (before + after) / 2, reading, cpu

    def cost(
        self,
        side: Side,
        workers: Workers,
        jobs: int,
        since: tuple[float, Reading, float],
    ) -> Row:
        """What each job took since."""
        over, reading, cpu = self.spent(side, workers, jobs)
        count = over - since[0]
        return {"worker_us": (cpu - since[2]) / count * 1e6, **reading.since(since[1], count)}

    def wait_up(self, side: Side, workers: Workers) -> None:
        """Wait until the workers work."""
        with self.client(side.peer, "schedule", entries=[(0, "warm", 0, 0)]) as client:
            client.go()
            self.wait_stamps(1, workers, timeout=60)
        time.sleep(2)  # until all their processes do

    def wait_stamps(self, count: int, workers: Workers, *, kind: str = "", timeout: float) -> None:
        """Wait until so many jobs have noted that they started."""
        until = time.monotonic() + timeout
        while (found := len(self.read_stamps(kind))) < count:
            workers.check()
            if time.monotonic() > until:
                text = f"{found} of {count} jobs had started after {timeout:.0f} s"
                raise BenchError(f"{text}: {workers.tail()}")
            time.sleep(0.1)

    def read_stamps(self, kind: str = "") -> list[float]:
        """The seconds by which jobs started late."""
        lines = (line.split() for line in self.stamps.read_text().splitlines())
        return [
            float(fields[2]) - float(fields[1])
            for fields in lines
            if len(fields) == 3 and kind in ("", fields[0])
        ]

    @contextmanager
    def attempt(self, what: str) -> t.Iterator[None]:
        """Let one side fail without the others."""
        try:
            yield
        except BenchError as error:
            self.failures.append(f"{what}: {error}")
            print(f"  FAILED {self.failures[-1]}", file=sys.stderr, flush=True)


def find(name: str) -> Side:
    return next(side for side in SIDES if side.name == name)


def take_turns(
    bench: Bench,
    part: str,
    sides: t.Sequence[Side],
    one: t.Callable[[Side], Row],
    rounds: int = 0,
) -> list[Row]:
    """Rounds in which the sides take turns, every other one backwards."""
    rows = []
    for number in range(rounds or bench.rounds):
        for side in sides[::-1] if number % 2 else sides:
            with bench.attempt(f"{part}, {side.name}"):
                started = time.monotonic()
                bench.reset()
                row: Row = {"side": side.name, "peer": side.peer, "topology": side.topology}
                # The load tells later which rounds had company.
                row |= {"round": number, "load": os.getloadavg()[0], **one(side)}
                rows.append(row)
                took = time.monotonic() - started
                print(f"  {part} {number + 1}: {side.name} ({took:.0f} s)", file=sys.stderr)
    return rows


def by(rows: t.Iterable[Row], key: str = "side") -> dict[str, list[Row]]:
    """Rows by one of their fields, in the order of the sides."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row[key]), []).append(row)
    order = [side.name for side in SIDES]
    return dict(sorted(found.items(), key=lambda i: order.index(i[0]) if i[0] in order else -1))


def middle(rows: t.Iterable[Row], key: str) -> float:
    """The median of one figure over the rounds."""
    return statistics.median(float(row[key]) for row in rows)


def span(rows: t.Iterable[Row], key: str) -> str:
    """The least and the most of one figure over the rounds."""
    values = [float(row[key]) for row in rows]
    return f"{min(values):,.0f} to {max(values):,.0f}"


def percentile(values: t.Sequence[float], percent: float) -> float:
    """The value that ``percent`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
