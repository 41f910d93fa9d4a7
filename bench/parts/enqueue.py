"""What an enqueue costs: the caller's time, one by one and in bulk, commands, the server's time."""

from __future__ import annotations

from ..sides import PEERS, Side
from .base import Bench, Row, Table, by, middle, percentile, take_turns

__all__ = ["measure", "tables"]

CALLS = 1_000
BULK = 5_000
HAVE_BULK = {"ours", "rq"}


def measure(bench: Bench) -> list[Row]:
    def one(side: Side) -> Row:
        with bench.client(side.peer, "delays", jobs=CALLS) as client:
            before = bench.server.read()
            took = [seconds * 1e6 for seconds in client.go()]
            cost = bench.server.read().since(before, CALLS)
        row = {"p50": percentile(took, 50), "p99": percentile(took, 99), "calls": CALLS, **cost}
        if side.peer in HAVE_BULK:
            bench.reset()
            with bench.client(side.peer, "many", jobs=BULK) as client:
                row["bulk"] = client.go() * 1e6
        return row

    sides = [Side(peer, "", []) for peer in PEERS if peer in bench.peers | {"ping"}]
    return take_turns(bench, "enqueue", sides, one)


def tables(rows: list[Row]) -> list[Table]:
    peers = by(rows, "peer")
    ping = middle(peers["ping"], "p50") if "ping" in peers else 0
    stock = middle(peers["stock"], "p50") if "stock" in peers else 0
    lines = []
    for peer, found in peers.items():
        p50 = middle(found, "p50")
        ratios = [f"{p50 / ping:.1f}" if ping else "", f"{stock / p50:.1f}" if stock else ""]
        bulk = f"{middle(found, 'bulk'):,.0f}" if "bulk" in found[0] else ""
        costs = [f"{middle(found, key):,.1f}" for key in ("commands", "round_trips")]
        costs.append(f"{middle(found, 'server_us'):,.0f}")
        p99 = f"{middle(found, 'p99'):,.0f}"
        lines.append([PEERS[peer].title, f"{p50:,.0f}", p99, *ratios, bulk, *costs])
    head = ["", "p50, µs", "p99, µs", "x PING", "stock / this", "in bulk, µs a job"]
    head += ["commands", "round trips", "server, µs"]
    return [Table("Enqueue", head, lines, "Medians of the rounds' percentiles.")]
