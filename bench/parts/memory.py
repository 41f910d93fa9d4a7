"""What a job that waits takes on the server."""

from __future__ import annotations

import time

from ..sides import PEERS, Side
from .base import Bench, Row, Table, by, take_turns

__all__ = ["measure", "tables"]

JOBS = 20_000


def measure(bench: Bench) -> list[Row]:
    def one(side: Side) -> Row:
        before = bench.server.read().memory
        bench.fill(side, JOBS)
        time.sleep(0.5)  # until the buffers of the client that has gone are free
        return {"bytes": (bench.server.read().memory - before) / JOBS}

    sides = [Side(peer, "", []) for peer in PEERS if peer in bench.peers]
    return take_turns(bench, "memory", sides, one, rounds=1)


def tables(rows: list[Row]) -> list[Table]:
    lines = [
        [PEERS[peer].title, f"{float(found[0]['bytes']):,.0f}"]
        for peer, found in by(rows, "peer").items()
    ]
    note = f"Of {JOBS:,} no-ops without arguments that wait."
    return [Table("Memory of the server for a queued job", ["", "bytes"], lines, note)]
