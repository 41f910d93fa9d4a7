"""What should not be on the queue, what nobody knows, and what somebody takes away."""

from __future__ import annotations

import time
import typing as t

import pytest

from waiting import wait_until

if t.TYPE_CHECKING:
    from lab import Lab

    from conftest import Bench

BYTES = [b"", b"\x00\xff\xfe", b"{", b"[]", b"null", b"{}", b'"text"', b"\xed\xa0\x80", b"9" * 400]


def garbage(lab: Lab) -> bytes:
    """Bytes that are no message, or nearly one."""
    pick = lab.random.randrange(4)
    if pick == 0:
        return lab.random.choice(BYTES)
    if pick == 1:
        return lab.random.randbytes(lab.random.randrange(1, 200))
    if pick == 2:
        return b'{"body": "%s", "headers": {}}' % lab.random.randbytes(8).hex().encode()
    return b'{"body": 1, "headers": {"task": [1], "id": {}}, "properties": {"delivery_info": 0}}'


def spoil(lab: Lab, number: int) -> str | None:
    """Put one unreadable thing on the server; the id of the job, if it is to have one."""
    keys = lab.control.store.keys
    queue, scheduled = f"{keys.prefix}queue:celery", f"{keys.prefix}scheduled"
    name = f"fuzz-{number}"
    kind = number % 7
    with lab.server.client() as client:
        if kind == 0:  # An id without a job.
            client.zadd(queue, {name: 0})
        elif kind == 1:  # A name that is no text.
            client.zadd(queue, {lab.random.randbytes(30): 0})
            return None
        elif kind == 2:  # A job whose message is spoilt.
            lab.control.store.call("HSET", keys.job(name), "state", "queued", "queue", "celery")
            client.hset(keys.job(name), "envelope", garbage(lab))
            client.zadd(queue, {name: 0})
        elif kind == 3:  # A key of another type where the job should be.
            client.rpush(keys.job(name), garbage(lab))
            client.zadd(queue, {name: 0})
        elif kind == 4:  # A real job, spoilt in one place.
            return respoil(lab, client, name)
        elif kind == 5:  # Due, and not there.
            client.zadd(scheduled, {name: 0})
        else:  # Leased by nobody, and not there.
            client.zadd(f"{keys.prefix}leases", {name: 0})
    return name


def respoil(lab: Lab, client: t.Any, name: str) -> str:
    """Enqueue a job while no worker is there to take it, and break its message."""
    job = lab.app.extensions["offload"].celery.tasks["tasks_app.job"].delay(name)
    key = lab.control.store.keys.job(job.id)
    envelope = client.hget(key, "envelope").encode()
    at = lab.random.randrange(len(envelope) // 2)
    broken = envelope[:at] + lab.random.randbytes(3) + envelope[at + lab.random.randrange(9) :]
    client.hset(key, "envelope", broken)
    return str(job.id)


def test_row_15_fuzzed_entries(bench: Bench) -> None:
    if not bench.ours:
        pytest.skip("The stock transport has no such keys; one corrupt entry kills its worker.")
    lab = bench.lab()
    with bench.row(15) as result:
        count = bench.count(1_000)
        ids = [spoil(lab, number) for number in range(count)]
        for number in range(20):
            lab.enqueue(f"good-{number}", 0)
        workers = [lab.worker(ready=False) for _ in range(2)]
        lab.ready(*workers)
        bench.settle(lab, result, 60)
        deaths = sum(not worker.alive for worker in workers)
        states = {r.id: str(r.state) for r in lab.control.newest(limit=100_000)}
        dead = sum(state == "dead" for state in states.values())
        missing = [(n, n % 7) for n, i in enumerate(ids) if i and states.get(i) != "dead"]
        ran = sum(token.startswith("fuzz") for token in lab.tally.runs)
        result.note(entries=count, worker_deaths=deaths, dead=dead, not_dead=len(missing), ran=ran)
        result.promise(not deaths, "a worker died")
        # A changed byte may leave a message that is as good as before; it may run.
        gone = [(n, kind) for n, kind in missing if not (kind == 4 and states.get(ids[n] or ""))]
        result.promise(not gone, f"not in the dead letters (entry, kind): {gone[:8]}")


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
