"""Whether a worker grows: its memory after a thousand jobs, and after a million."""

from __future__ import annotations

from .base import Bench, Row, Table, find

__all__ = ["measure", "tables"]

SIDE = "ours: threads 8"
BATCH = 50_000
POINTS = (1_000, 10_000, 100_000, 300_000, 1_000_000)


def measure(bench: Bench) -> list[Row]:
    if "ours" not in bench.peers:
        return []
    side, rows, total = find(SIDE), [], 0
    bench.reset()
    # The records of all of them would fill the server.
    with bench.attempt("growth"), bench.workers(side, BENCH_RETENTION="5") as workers:
        for point in (point for point in POINTS if point <= bench.backlog):
            while total < point:
                batch = min(BATCH, point - total)
                bench.fill(side, batch)
                total += batch
                bench.wait_done(side, workers, total, total, timeout=60 + batch / 100)
            rows.append({"side": SIDE, "jobs": total, "rss": workers.memory("Rss")})
    return rows


def tables(rows: list[Row]) -> list[Table]:
    lines = [[f"{row['jobs']:,}", f"{row['rss'] / 1e6:,.1f}"] for row in rows]
    return [Table(f"Memory of a worker ({SIDE})", ["after jobs", "RSS, MB"], lines)]
