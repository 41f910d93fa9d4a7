"""What the scripts count, and what their number bounds."""

from __future__ import annotations

import typing as t

from test_store import enqueue, new, start, store

from flask_offload import JobState
from flask_offload._store import Store, statistics

__all__ = ["store"]  # a fixture


def over(store: Store, job_id: str, state: str) -> None:
    start(store, new(store, job_id))
    assert store.finish(job_id, state, "{}", {}) == 1


def test_what_happens_is_counted_in_all_and_by_the_minute(store: Store) -> None:
    for number in range(3):
        over(store, f"good{number}", "succeeded")
    over(store, "bad", "failed")
    job = new(store, "again")
    start(store, job)
    retry = type(job)(id="again", task="app.work", retries=1, delay=60)
    assert enqueue(store, retry, JobState.RETRYING) == "again"
    # An id that exists adds nothing, and counts for nothing.
    assert enqueue(store, retry, JobState.RETRYING) == "exists"
    store.cancel("again", "", "{}")
    found = statistics(store)
    expected = {"enqueued": 5, "retried": 1, "succeeded": 3, "failed": 1, "cancelled": 1}
    assert {name: count for name, count in found.totals.items() if count} == expected
    assert len(found.minutes) == 60
    sums: dict[str, int] = {}
    for minute in found.minutes[-2:]:
        for name, count in minute.counts.items():
            sums[name] = sums.get(name, 0) + count
    assert sums == found.totals


def test_the_dead_are_bounded_by_their_number(store: Store) -> None:
    over(store, "first", "dead")
    members = [item for n in range(9_999) for item in (9e9, f"filler{n}")]
    store.call("ZADD", f"{store.keys.prefix}dead", *t.cast("list[t.Any]", members))
    assert store.prune() == []
    over(store, "one-more", "dead")
    assert store.prune() == ["first"]
    assert statistics(store).totals["dead_dropped"] == 1
    assert store.get("one-more").state is JobState.DEAD


def test_events_are_bounded(store: Store) -> None:
    """They are cut now and then, also when there are many more of them than there should be."""
    many = [("XADD", store.keys.events, "*", "job", "x", "kind", "y")] * 1_000
    for _ in range(20):
        store._pipeline(many)
    for number in range(2_000):
        new(store, f"job{number}")
        if store.call("XLEN", store.keys.events) < 10_500:
            return
    raise AssertionError("The stream of events only grows.")
