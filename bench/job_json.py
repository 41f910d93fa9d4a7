"""What ``GET /jobs/<id>`` as JSON costs, against a view that returns a constant.

    .venv/bin/python -m bench.job_json                  # with a million records, some minutes
    .venv/bin/python -m bench.job_json --records 10000

One process of gunicorn (threads), and one client with a connection that it keeps. Rounds take
turns, so that all addresses meet the same machine; then the same again with as many records stored,
all of them in one line. Medians of the rounds: what the client waited for an answer, and the
processor time of the web process and of the server.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import sys
import time
from pathlib import Path

from flask_offload._config import Settings
from flask_offload._jobs import JobState
from flask_offload._store import Accepted, Deadline, NewJob, Store, WorkerInfo

from .apps import free_port
from .processes import Workers
from .server import Server
from .streams import ROOT, wait_for

ROUNDS, REQUESTS, WARM_UP = 20, 100, 200
HEADERS = {"Accept": "application/json", "X-User": "one"}
#: The message of a small job, about.
ENVELOPE = json.dumps({"body": "x" * 200, "headers": {"task": "report"}, "properties": {}})
BATCH = 500


def store_at(url: str) -> Store:
    settings = Settings(directory=Path("/nowhere"), files_url="/nowhere", namespace="bench")
    return Store(url, settings)


def new(job_id: str, owner: str) -> NewJob:
    return NewJob(id=job_id, task="report", title="A report", queue="celery", owners=(owner,))


def fill(store: Store, records: int) -> None:
    """Enqueue that many, of a thousand owners."""
    for first in range(0, records, BATCH):
        jobs = [new(f"filler-{n}", f"u:{n % 1_000}") for n in range(first, first + BATCH)]
        accepted = [Accepted.of(job, JobState.QUEUED, ENVELOPE) for job in jobs]
        store.enqueue_all(accepted, Deadline.after(30))


def looked_at(store: Store) -> dict[str, str]:
    """An address for each state in which somebody looks at a job."""
    store.beat(WorkerInfo(name="w", queues=("celery",)), 3600)
    jobs = {state: new(f"a-job-that-is-{state}", "u:one") for state in ("running", "done")}
    for state, job in jobs.items():
        store.enqueue(job, state=JobState.QUEUED, deadline=Deadline.after(5))
        store.start(job, worker="w", max_deliveries=5)
        if state == "done":
            store.finish(job.id, "succeeded", json.dumps({"result": {"rows": 1_000}}))
    waiting = new("a-job-that-waits", "u:one")
    accepted = Accepted.of(waiting, JobState.QUEUED, ENVELOPE)
    store.enqueue_all([accepted], Deadline.after(5))
    addresses = {"waiting": f"/jobs/{waiting.id}"}
    return addresses | {state: f"/jobs/{job.id}" for state, job in jobs.items()}


def ask(connection: http.client.HTTPConnection, path: str, requests: int) -> list[float]:
    took = []
    for _ in range(requests):
        began = time.perf_counter()
        connection.request("GET", path, headers=HEADERS)
        answer = connection.getresponse()
        answer.read()
        took.append(time.perf_counter() - began)
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status}")
    return took


def measure(port: int, web: Workers, server: Server, paths: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in paths}
    for path in paths.values():
        ask(connection, path, WARM_UP)
    for number in range(ROUNDS):
        for name in sorted(paths, reverse=bool(number % 2)):
            used, of_server = web.cpu(), server.read().cpu
            waited = statistics.median(ask(connection, paths[name], REQUESTS))
            used, of_server = web.cpu() - used, server.read().cpu - of_server
            rows[name].append((waited, used / REQUESTS, of_server / REQUESTS))
    middle = {
        name: [statistics.median(column) * 1e3 for column in zip(*found, strict=True)]
        for name, found in rows.items()
    }
    constant = middle["constant"]
    for name, (waited, used, of_server) in middle.items():
        ratios = f"{waited / constant[0]:.2f} | {used / constant[1]:.2f}"
        print(f"| {name} | {waited:.2f} | {used:.2f} | {of_server:.3f} | {ratios} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--records", type=int, default=1_000_000)
    records = parser.parse_args().records
    server, port = Server(), free_port()
    command = [sys.executable, "-m", "gunicorn", "--threads", "4", "-b", f"127.0.0.1:{port}"]
    command += ["--keep-alive", "600", "--pythonpath", str(ROOT), "bench.web_app:app"]
    web = Workers([command], os.environ | {"OFFLOAD_URL": server.url}, server.folder / "web.log")
    try:
        wait_for(port)
        store = store_at(server.url)
        paths = {"constant": "/constant"} | looked_at(store)
        for stored in (0, records):
            began = time.monotonic()
            fill(store, stored)
            memory = server.read().memory / 1e6
            print(f"\n{stored:,} records, {memory:,.0f} MB, in {time.monotonic() - began:.0f} s\n")
            titles = "client, ms | web CPU, ms | server CPU, ms | client, ratio | CPU, ratio"
            print(f"| | {titles} |\n|---|---|---|---|---|---|", flush=True)
            measure(port, web, server, paths)
    finally:
        web.kill()
        server.stop()


if __name__ == "__main__":
    main()
