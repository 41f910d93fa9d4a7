"""A server that is full, arguments that are too large, a stop in the middle of work."""

from __future__ import annotations

import signal
import time
import typing as t

from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import Bench


def test_row_10_sigterm_under_load(bench: Bench) -> None:
    lab = bench.lab(lease=30, OFFLOAD_GRACE="15")
    with bench.row(10) as result:
        rounds = bench.count(20)
        returned: list[float] = []
        for number in range(rounds):
            worker = lab.worker(concurrency=4)
            before = set(lab.tally.runs)
            count = 30
            for n in range(count):
                lab.enqueue(f"{number}-{n}", 0.5)
            wait_until(lambda before=before: len(set(lab.tally.runs) - before) >= 6, 20)  # type: ignore[misc]
            at = time.monotonic()
            worker.process.signal(signal.SIGTERM)

            def all_back() -> bool:
                waiting = set(lab.tally.confirmed) - set(lab.tally.runs)
                return lab.queued() == len(waiting)

            try:
                wait_until(all_back, 10, 0.02)
            finally:
                returned.append(time.monotonic() - at)
            code = worker.process.popen.wait(20)
            result.promise(code == 0, f"exit code {code}")
            waiting = set(lab.tally.confirmed) - set(lab.tally.runs)
            result.promise(lab.queued() == len(waiting), "queued is not what has not started")
        result.note(back_after=max(returned))
        result.promise(max(returned) <= 1, "not back in the queue within 1 s")
        lab.ready(*[lab.worker(concurrency=4, ready=False) for _ in range(2)])
        bench.settle(lab, result, 60 + 5 * rounds)
        result.promise(not lab.tally.extra, f"{len(lab.tally.extra)} extra starts")


def test_row_11_maxmemory(bench: Bench) -> None:
    """One worker is there when the server fills up, another one starts on the full server."""
    lab = bench.lab(lease=3)
    count = bench.count(200, 10)
    with bench.row(11) as result:
        worker = lab.worker()
        worker.group(signal.SIGSTOP)
        for number in range(count):
            lab.enqueue(f"before-{number}", 0, "x" * 2_000)
            lab.enqueue(f"other-{number}", 0, "x" * 2_000, queue="other")
        with lab.server.client() as client:
            client.config_set("maxmemory", client.info("memory")["used_memory"])
        for number in range(10):
            lab.enqueue(f"full-{number}", 0, "x" * 2_000)
        reasons = set(lab.tally.refused.values())
        result.note(refused_when_full=len(lab.tally.refused))
        result.promise(len(lab.tally.refused) == 10, "not all refused")
        result.promise(all("maxmemory" in why for why in reasons), f"unclear: {reasons}")
        worker.group(signal.SIGCONT)
        late = lab.worker("-Q", "other", ready=False)
        lab.drain(30)
        result.promise(worker.alive, "the worker died")
        result.promise(late.alive, "a worker cannot start on a full server")
        lost = {
            kind: sum(k.startswith(kind) for k in lab.tally.lost) for kind in ("before", "other")
        }
        result.note(not_drained_when_full=sum(lost.values()))
        result.promise(not lost["before"], f"{lost['before']} not drained by the worker")
        result.promise(not lost["other"], f"{lost['other']} not drained by a worker that starts")
        with lab.server.client() as client:
            client.config_set("maxmemory", 0)
        if not late.alive:
            lab.worker("-Q", "other")
        result.promise(lab.enqueue("after", 0) is not None, "refused after the end")
        bench.settle(lab, result, 30)


def test_row_17_64_mb_of_arguments(bench: Bench) -> None:
    lab = bench.lab()
    with bench.row(17) as result, lab.server.client() as client:
        used = client.info("memory")["used_memory"]
        started = time.monotonic()
        job = lab.enqueue("large", 0, "x" * 64_000_000)
        result.note(took=time.monotonic() - started)
        grown = client.info("memory")["used_memory"] - used
        (why,) = lab.tally.refused.values()
        result.note(refused=len(lab.tally.refused), server_grew_by=f"{grown / 1e6:.1f} MB")
        result.promise(job is None and "PayloadTooLarge" in why, f"not refused: {why}")
        result.promise(grown < 2_000_000, "the server took it in")
        result.promise(not lab.control.newest(), "a record was left")
