"""A primary, a replica and a sentinel: what happens when the primary does not go on."""

from __future__ import annotations

import contextlib
import time
import typing as t
from pathlib import Path

import pytest

import topologies
from flask_offload import EnqueueError
from flask_offload._store import Deadline
from topologies import SentinelSetup, needs_redis
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System

MakeSystem = t.Callable[..., "System"]


def lines(ledger: Path) -> list[str]:
    return ledger.read_text().split() if ledger.exists() else []


def strike(setup: SentinelSetup, how: str) -> None:
    old = setup.primary
    assert old.process
    if how == "killed":
        old.stop()
    elif how == "hung":
        old.pause()
    else:
        with setup.ask() as client:
            client.execute_command("SENTINEL", "FAILOVER", topologies.MASTER)


@needs_redis
@pytest.mark.parametrize(
    ("how", "pool"), [("killed", "prefork"), ("hung", "threads"), ("demoted", "prefork")]
)
def test_a_failover(make_system: MakeSystem, tmp_path: Path, how: str, pool: str) -> None:
    ledger, long = tmp_path / "ledger", tmp_path / "long"
    with topologies.running(SentinelSetup) as setup:
        system = make_system(setup.url(), OFFLOAD_LEASE="9")
        celery = system.app().extensions["offload"].celery
        tasks, old = celery.tasks, setup.primary
        worker = system.worker("--pool", pool, "--concurrency", "2")
        before = [tasks["sample.note"].delay(str(ledger), f"before{n}") for n in range(10)]
        running = tasks["sample.sleep"].delay(8, str(long))
        later = [
            tasks["sample.note"].apply_async((str(ledger), f"later{n}"), countdown=10)
            for n in range(10)
        ]
        wait_until(lambda: len(lines(ledger)) == 10 and lines(long))
        wait_until(lambda: all(job.record.state.finished for job in before))
        # Each of a pool: all of them are led to the new primary.
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(celery.store.connections.take(Deadline.after(2)))
        setup.replicated()
        with celery.feed.subscribe([running.id]) as changes:
            setup.replicated()
            began = time.monotonic()
            strike(setup, how)
            confirmed, slowest, number, window = [], 0.0, 0, set()
            back = new = 0.0
            while not back or time.monotonic() - began < back + 3:
                # A server takes writes for up to ten seconds after its sentinels have named
                # another one. They are looked at once a second.
                now = time.monotonic()
                if not new and setup.primary is not old:
                    new = now
                over = new and now - new > 1.2
                word, asked, number = f"during{number}", time.monotonic(), number + 1
                if not over:
                    window.add(word)
                with contextlib.suppress(EnqueueError):
                    done = tasks["sample.note"].delay(str(ledger), word)
                    back = back or (new and time.monotonic() - began)
                    if over:
                        confirmed.append((word, done))
                slowest = max(slowest, time.monotonic() - asked)
                assert time.monotonic() - began < 30, setup.log
                time.sleep(0.05)
            print(f"{how}: back after {back:.1f} s, slowest enqueue {slowest:.1f} s")
            assert slowest < 3
            # Who waited before the failover hears of what comes after it.
            assert running.get(timeout=30) == "slept"
            wait_until(lambda: changes.wait(0.2) == {running.id}, 10)
        wait_until(lambda: all(job.record.state.finished for _, job in confirmed), 30)
        wait_until(lambda: all(job.record.state.finished for job in later), 30)
        # Remote control, too, by connections of its own.
        wait_until(lambda: celery.control.ping(timeout=1) == [{"w0@test": {"ok": "pong"}}], 30)
        print(f"{how}: remote control after {time.monotonic() - began:.1f} s")
        assert lines(long) == ["start", "end"]
        ran = lines(ledger)
        # What ended on the old primary alone runs again; nothing else does.
        assert [word for word in set(ran) - window if ran.count(word) > 1] == []
        words = {f"{kind}{n}" for kind in ("before", "later") for n in range(10)}
        assert words | {word for word, _ in confirmed} <= set(ran)
        assert worker.popen.poll() is None


@needs_redis
def test_a_demoted_primary_refuses_and_the_new_one_is_asked(make_system: MakeSystem) -> None:
    with topologies.running(SentinelSetup) as setup:
        celery = make_system(setup.url()).app().extensions["offload"].celery
        job = celery.tasks["sample.add"].delay(1)
        setup.replicated()
        one, two = setup.servers
        with one.client() as first, two.client() as second, setup.ask() as sentinel:
            # By hand, for sentinel would cut the connections of clients.
            sentinel.sentinel_remove(topologies.MASTER)
            second.execute_command("REPLICAOF", "NO", "ONE")
            first.execute_command("REPLICAOF", "127.0.0.1", two.port)
            sentinel.sentinel_monitor(topologies.MASTER, "127.0.0.1", two.port, 1)
        # As if the sentinels had been asked just before.
        celery.store.connections._primary._ask_at = time.monotonic() + 60
        assert celery.tasks["sample.add"].delay(2).id != job.id
        assert job.record.state == "queued"
        assert celery.store.size("celery") == 2
