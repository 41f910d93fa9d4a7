"""What should not be on the queue, what nobody knows, and what somebody takes away."""

from __future__ import annotations

import os
import time
import typing as t
from collections import Counter
from contextlib import suppress

import pytest
import redis

from waiting import wait_until

if t.TYPE_CHECKING:
    from lab import Lab

    from conftest import Bench

KINDS = (
    "an id without a job",
    "an id that is no text",
    "a spoilt message",
    "a key of another type",
    "a message that is spoilt in one place",
    "scheduled, and not there",
    "leased, and not there",
    "a message that is no text",
    "a message with a spot that is no text",
)
TEXTS = [b"", b"{", b"[]", b"null", b"{}", b'"text"', b"9" * 400, b"\x00", b"[" * 5000]
NEARLY = (
    b'{"body": "@", "headers": {}}',
    b'{"body": 1, "headers": {"task": [1], "id": {}}, "properties": {"delivery_info": 0}}',
    b'{"body": "@", "headers": {"task": "tasks_app.job", "id": "@"}, "properties": {}}',
    b'{"headers": {"task": "tasks_app.job", "id": "@"}, "properties": {"delivery_tag": []}}',
)


def garbage(lab: Lab, *, text: bool) -> bytes:
    """What is no message, or nearly one."""
    if not text:
        return lab.random.randbytes(lab.random.randrange(5, 200)) + b"\xff"
    if lab.random.random() < 0.5:
        return lab.random.choice(TEXTS)
    return lab.random.choice(NEARLY).replace(b"@", lab.random.randbytes(8).hex().encode())


def spoil(lab: Lab, kind: int, name: str) -> str | None:
    """Put one unreadable thing on the server; the id of the job that it is to be."""
    prefix = lab.control.store.keys.prefix
    queue, job = f"{prefix}queue:celery", f"{prefix}job:{name}"
    with lab.server.client() as client:
        if kind == 0:
            client.zadd(queue, {name: 0})
        elif kind == 1:
            client.zadd(queue, {lab.random.randbytes(30): 0})
            return None
        elif kind in (2, 7):
            fields = {"state": "queued", "queue": "celery", "task": "tasks_app.job"}
            client.hset(job, mapping={**fields, "envelope": garbage(lab, text=kind == 2)})
            client.zadd(queue, {name: 0})
        elif kind == 3:
            client.rpush(job, garbage(lab, text=False))
            client.zadd(queue, {name: 0})
        elif kind in (4, 8):
            return respoil(lab, client, name, text=kind == 4)
        elif kind == 5:
            client.zadd(f"{prefix}scheduled", {name: 0})
        else:
            client.zadd(f"{prefix}leases", {name: 0})
    return name


def respoil(lab: Lab, client: t.Any, name: str, *, text: bool) -> str:
    """Enqueue a job while no worker is there to take it, and break its message."""
    job = lab.app.extensions["offload"].celery.tasks["tasks_app.job"].delay(name)
    key = lab.control.store.keys.job(job.id)
    envelope = client.hget(key, "envelope").encode()
    at = lab.random.randrange(len(envelope) // 2)
    spot = lab.random.randbytes(2).hex().encode() if text else b"\xff\xfe"
    broken = envelope[:at] + spot + envelope[at + lab.random.randrange(9) :]
    client.hset(key, "envelope", broken)
    return str(job.id)


def raw_states(lab: Lab) -> dict[str, str]:
    """The states of all jobs as they stand on the server, also where nobody can read the rest."""
    prefix = f"{lab.control.store.keys.prefix}job:".encode()
    found = {}
    with redis.Redis.from_url(lab.server.url) as client:
        for key in client.scan_iter(match="*:job:*", count=1000):
            if client.type(key) == b"hash":
                state = client.hget(key, "state") or b""
                found[key.removeprefix(prefix).decode(errors="replace")] = state.decode()
    return found


def test_row_15_fuzzed_entries(bench: Bench) -> None:
    if not bench.ours:
        pytest.skip("The stock transport has no such keys; one corrupt entry kills its worker.")
    # A spot in the name of its task makes a job wait for a worker that knows it, not for an hour.
    lab = bench.lab(OFFLOAD_PARK_FOR="3")
    kinds = [int(k) for k in os.environ.get("CHAOS_FUZZ", "0 1 2 3 4 5 6 7 8").split()]
    with bench.row(15) as result:
        count = bench.count(1_000)
        expected = []
        for number in range(count):
            kind = kinds[number % len(kinds)]
            expected.append((kind, spoil(lab, kind, f"fuzz-{number}")))
        for number in range(20):
            lab.enqueue(f"good-{number}", 0)
        workers = [lab.worker(ready=False) for _ in range(2)]

        def over() -> bool:
            lived = any(worker.alive for worker in workers)
            return not lived or not lab.tally.lost

        with suppress(AssertionError):
            wait_until(over, 30)
        with suppress(AssertionError):
            wait_until(lambda: set(raw_states(lab).values()) <= {"dead", "succeeded"}, 20)
        deaths = [w.process.text for w in workers if not w.alive]
        states = raw_states(lab)
        dead = sum(state == "dead" for state in states.values())
        missing = Counter(KINDS[kind] for kind, i in expected if i and not over_with(states.get(i)))
        texts = sum(i is not None for _, i in expected)
        result.note(entries=count, worker_deaths=len(deaths), dead=dead)
        result.note(lost=len(lab.tally.lost), not_in_dead_letters=sum(missing.values()))
        result.promise(not deaths, f"workers died: {[text[-200:] for text in deaths]}")
        result.promise(not lab.tally.lost, f"{len(lab.tally.lost)} good jobs never ran")
        result.promise(not missing, f"not in the dead letters: {dict(missing)}")
        result.promise(len(states) >= count + 20, f"{count - texts} of no text: not all are there")
        try:
            listed = len(lab.control.newest(limit=10_000))
        except Exception as error:
            result.promise(False, f"the list cannot be read: {error!r}")
            return
        result.promise(listed >= count, f"{listed} are listed")
        left = lab.leaks()
        result.note(left_over=len(left))
        result.promise(not left, f"left over {left[:5]}")


def over_with(state: str | None) -> bool:
    # One changed byte may leave a message that is as good as before.
    return state in {"dead", "succeeded", "failed"}


def test_row_16_unknown_task_during_a_rolling_deploy(bench: Bench) -> None:
    """The web process is new, one worker is old; the new worker comes later."""
    lab = bench.lab(CHAOS_NEW="1")
    with bench.row(16) as result:
        old = lab.worker(CHAOS_NEW="")
        count = bench.count(100, 20)
        for number in range(count):
            lab.enqueue(f"new-{number}", task="new")
            lab.enqueue(f"old-{number}", 0)
        wait_until(lambda: all(f"old-{n}" in lab.tally.completed for n in range(count)), 30)
        result.promise(old.alive, "the old worker died")
        lab.worker()
        bench.settle(lab, result, 60)
        result.note(of_unknown_tasks=count)


def test_row_18_purge_and_pause_under_load(bench: Bench) -> None:
    lab = bench.lab(lease=2)
    workers = [lab.worker(concurrency=2, ready=False) for _ in range(2)]
    lab.ready(*workers)
    purges = bench.count(40, 2)
    with bench.row(18) as result:
        producer = lab.producer(count=purges * 100, rate=100, args=[0.1])
        wait_until(lambda: len(lab.tally.completed) > 5, 30)
        purged, running = 0, set[str]()
        for _ in range(purges):
            running |= set(lab.tally.runs) - set(lab.tally.completed)
            purged += lab.app.extensions["offload"].celery.control.purge() or 0
            if hasattr(lab.control, "pause"):
                paused(lab, result)
            victim = lab.random.randrange(2)
            lab.kill(workers[victim])
            workers[victim] = lab.worker(concurrency=2)
        lab.produced(producer)

        def done() -> bool:
            return not running - set(lab.tally.completed) and not lab.queued()

        drained = lab.drain(60, done)
        states = lab.states()
        open_ends = {k for k in lab.tally.lost if states.get(k) != "cancelled"}
        lost = running - set(lab.tally.completed)
        result.note(confirmed=len(lab.tally.confirmed), purged=purged, running=len(running))
        result.note(running_lost=len(lost), never_ended=len(open_ends))
        result.note(unexplained=len(lab.tally.unexplained))
        result.promise(drained, "did not drain")
        result.promise(not lost, f"running jobs lost: {sorted(lost)[:5]}")
        result.promise(not open_ends, f"neither run nor cancelled: {sorted(open_ends)[:5]}")
        result.promise(not lab.tally.unexplained, "unexplained starts")
        left = lab.leaks() if drained else []
        result.note(left_over=len(left))
        result.promise(not left, f"left over {left[:5]}")


def paused(lab: Lab, result: t.Any) -> None:
    """Pause the queue: what waits stays, what runs ends, and nothing starts."""
    lab.control.pause("celery")
    time.sleep(0.5)  # A fetch that was on its way arrives.
    before = lab.tally.starts
    time.sleep(0.5)
    result.promise(lab.tally.starts <= before + 4, "a paused queue was consumed")
    lab.control.resume("celery")
