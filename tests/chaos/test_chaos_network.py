"""Connections that are killed, cut or swallowed, and replies that never arrive."""

from __future__ import annotations

import time
import typing as t

from proxy import Proxy

from waiting import wait_until

if t.TYPE_CHECKING:
    from lab import Lab

    from conftest import Bench


def through(lab: Lab, proxy: Proxy) -> dict[str, str]:
    """The environment of a process that reaches the server through the proxy only."""
    env = {"OFFLOAD_URL": proxy.url}
    if lab.engine == "stock":
        env["OFFLOAD_BROKER_URL"] = proxy.url.replace("redis://", "redis+kombu://")
    return env


def test_row_7_client_kill_on_running_jobs(bench: Bench) -> None:
    lab = bench.lab(lease=5)
    lab.ready(*[lab.worker(concurrency=4, ready=False) for _ in range(2)])
    kills = bench.count(50, 4)
    with bench.row(7) as result:
        count = 8 + kills * 2
        producer = lab.producer(count=count, args=[2.0])
        wait_until(lambda: len(lab.tally.runs) >= 8, 30)
        cut = 0
        for _ in range(kills):
            cut += lab.cut_clients()
            at = time.monotonic() + lab.random.uniform(0.3, 0.8)
            wait_until(lambda at=at: time.monotonic() >= at)  # type: ignore[misc]
        lab.produced(producer)
        bench.settle(lab, result, 60 + count)
        result.note(connections_cut=cut)
        result.promise(not lab.tally.extra, f"{len(lab.tally.extra)} extra starts")


def test_row_8_network_cut_and_half_open(bench: Bench) -> None:
    lab = bench.lab(lease=3)
    seconds = max(4.0, 60 * bench.scale)
    with Proxy(bench.server.port) as proxy, bench.row(8) as result:
        worker = lab.worker(concurrency=4, **through(lab, proxy))
        for mode in ("cut", "swallow"):
            producer = lab.producer(
                count=int((seconds + 4) * 10), rate=10, args=[0.05], prefix=mode
            )
            wait_until(lambda mode=mode: any(k.startswith(mode) for k in lab.tally.completed), 30)  # type: ignore[misc]
            lab.fault(mode, until=time.monotonic() + seconds)
            proxy.set(mode)
            healed = time.monotonic() + seconds
            wait_until(lambda healed=healed: time.monotonic() >= healed, seconds + 5)  # type: ignore[misc]
            proxy.set("pass")
            took = first_start_after(lab, time.monotonic(), 30)
            result.note(**{f"{mode}_back_after": took})
            result.promise(took <= 10, f"not consuming within 10 s after {mode}")
            lab.produced(producer)
        result.promise(worker.alive, "the worker died")
        bench.settle(lab, result, 60)


def first_start_after(lab: Lab, at: float, timeout: float) -> float:
    """Seconds until the first job starts after a moment; the timeout if none does."""

    def starts() -> list[float]:
        return [r.start for runs in lab.tally.runs.values() for r in runs if r.start > at]

    try:
        wait_until(starts, timeout)
    except AssertionError:
        return timeout
    return min(starts()) - at


def test_row_12_publish_reply_cut(bench: Bench) -> None:
    """The server has accepted, and its answer is lost: once for each of these jobs."""
    lab = bench.lab()
    lab.worker(concurrency=4)
    direct = dict(lab.env)
    with Proxy(bench.server.port) as proxy, bench.row(12) as result:
        proxy.set("cut-replies")
        lab.env.update(through(lab, proxy))
        for number in range(bench.count(1_000)):
            lab.enqueue(f"cut-{number}", 0)
        through_proxy = lab.app
        del lab.app
        through_proxy.extensions["offload"].control.store.connections.close()
        lab.env = direct
        bench.settle(lab, result, 30)
        result.note(replies_cut=proxy.cuts, refused_ran=len(lab.tally.refused_ran))
        result.promise(proxy.cuts >= len(lab.tally.tried), "the proxy cut too few replies")
        result.promise(not lab.tally.extra, f"{len(lab.tally.extra)} duplicates")
