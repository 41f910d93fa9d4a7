"""How late open job pages learn of what their jobs do: live streams beside pages that poll.

    .venv/bin/python -m bench.streams                # 1,000 pages, about three minutes
    .venv/bin/python -m bench.streams --readers 200 --seconds 5

One web process (gunicorn, gevent), one process whose jobs call ``current_job.progress()`` ten times
a second in all, and the browsers in two processes, all on this machine and over TCP. The jobs are
real records on a real Valkey, and report as they do in a worker; that the task is a loop here, and
not Celery's to start, saves workers. Latency counts from just before ``progress()`` is called
until a page has read that, or what came after it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import typing as t
from pathlib import Path
from urllib.request import urlopen

from flask_offload import current_job
from flask_offload._config import Settings
from flask_offload._current import RunningJob
from flask_offload._jobs import JobState
from flask_offload._store import Deadline, FileStore, NewJob, Store, WorkerInfo

from .apps import free_port
from .parts.base import percentile
from .processes import Workers
from .readers import EVERY
from .server import Server

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = 2
RATE = 10.0


def report(url: str, jobs: int, seconds: float) -> None:
    """Run jobs that report, by turns, ten times a second in all."""
    running = start(url, jobs)
    print(json.dumps([job.id for job in running]), flush=True)
    sys.stdin.readline()
    begin = time.monotonic()
    said: dict[str, list[float]] = {}
    for number in range(int(seconds * RATE)):
        time.sleep(max(0.0, begin + number / RATE - time.monotonic()))
        job, stamp = running[number % jobs], f"{time.time():.6f}"
        job.progress(number, seconds * RATE, stamp)
        said.setdefault(job.id, []).append(float(stamp))
    time.sleep(0.5)
    print(json.dumps(said), flush=True)
    sys.stdin.readline()


def start(url: str, jobs: int) -> list[RunningJob]:
    settings = Settings(directory=Path("/nowhere"), files_url="/nowhere", namespace="bench")
    store, files = Store(url, settings), FileStore("/nowhere", 1)
    store.beat(WorkerInfo(name="w", queues=("celery",)), 3600)
    running = []
    for number in range(jobs):
        job = NewJob(id=f"job-{number}", task="report", title="A report", queue="celery",
                     owners=("u:one",))  # fmt: skip
        store.enqueue(job, state=JobState.QUEUED, deadline=Deadline.after(5))
        store.start(job, worker="w", max_deliveries=5)
        running.append(RunningJob(job, store, files))
    assert not current_job
    return running


class Child:
    """A process that answers in lines of JSON."""

    def __init__(self, *command: str) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, cwd=ROOT, start_new_session=True,
        )  # fmt: skip

    def answer(self) -> t.Any:
        assert self._popen.stdout
        line = self._popen.stdout.readline()
        if not line:
            raise SystemExit("A process of the benchmark failed.")
        return json.loads(line)

    def go(self, data: object = None) -> None:
        assert self._popen.stdin
        self._popen.stdin.write(json.dumps(data) + "\n")
        self._popen.stdin.flush()

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()


def measure(mode: str, jobs: int, readers: int, seconds: float) -> dict[str, float]:
    """One round: what of it ended where is killed."""
    server, port = Server(), free_port()
    log = server.folder / "web.log"
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "--worker-connections", "5000"]
    command += [
        "-b",
        f"127.0.0.1:{port}",
        "--backlog",
        "4096",
        "--keep-alive",
        "10",
        "--pythonpath",
        str(ROOT),
    ]
    command += ["--log-level", "warning", "bench.web_app:app"]
    children: list[Child] = []
    web = Workers([command], os.environ | {"OFFLOAD_URL": server.url}, log)
    try:
        wait_for(port)
        reporter = Child("bench.streams", "--report", server.url, str(jobs), str(seconds))
        children.append(reporter)
        ids = reporter.answer()
        memory = web.memory()
        shares: list[dict[str, int]] = [{} for _ in range(PROCESSES)]
        for number in range(readers):
            share = shares[number % PROCESSES]
            job_id = ids[number // PROCESSES % len(ids)]
            share[job_id] = share.get(job_id, 0) + 1
        browsers = [Child("bench.readers", str(port), mode, json.dumps(s)) for s in shares]
        children += browsers
        for browser in browsers:
            browser.answer()
        held = (web.memory() - memory) / readers
        server_before, cpu, began = server.read(), web.cpu(), time.monotonic()
        connections = len(server.client.client_list())
        reporter.go()
        said = reporter.answer()
        took, cpu = time.monotonic() - began, web.cpu() - cpu
        server_cpu = server.read().cpu - server_before.cpu
        if mode == "poll":
            time.sleep(EVERY + 1)
        for browser in browsers:
            browser.go(said)
        found = [browser.answer() for browser in browsers]
    finally:
        for child in children:
            child.kill()
        web.kill()
        server.stop()
    return {
        **latencies(found),
        "KB a page": held / 1024,
        "web CPU %": cpu / took * 100,
        "Valkey CPU %": server_cpu / took * 100,
        "connections": connections,
        "KB/s": sum(f["bytes"] for f in found) / took / 1024,
    }


def latencies(found: list[dict[str, t.Any]]) -> dict[str, float]:
    each: dict[str, list[float]] = {}
    noted: dict[str, float] = {}
    for part in found:
        for stamp, (at, late) in part["seen"].items():
            each.setdefault(stamp, []).extend(late)
            noted[stamp] = at or noted.get(stamp, 0.0)
    every = [late for group in each.values() for late in group]
    last = [max(group) for group in each.values()]
    to_server = [at - float(stamp) for stamp, at in noted.items() if at]
    return {
        "last p50": statistics.median(last) * 1e3,
        "last p99": percentile(last, 99) * 1e3,
        "each p50": statistics.median(every) * 1e3,
        "each p99": percentile(every, 99) * 1e3,
        "to server p50": statistics.median(to_server) * 1e3 if to_server else 0.0,
        "lost": sum(part["lost"] for part in found),
    }


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return urlopen(f"http://127.0.0.1:{port}/constant", timeout=5).close()
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"Nothing answers on port {port}.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--readers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--jobs", type=int, nargs="*", default=[1, 10, 100, 1000])
    parser.add_argument("--modes", nargs="*", default=["stream", "poll"])
    parser.add_argument("--report", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.report:
        url, jobs, seconds = options.report
        return report(url, int(jobs), float(seconds))
    titles: list[str] = []
    for jobs in options.jobs:
        for mode in options.modes:
            row = measure(mode, jobs, options.readers, options.seconds)
            if not titles:
                titles = list(row)
                print("| jobs | pages | " + " | ".join(titles) + " |")
                print("|---" * (len(titles) + 2) + "|")
            cells = " | ".join(f"{row[title]:,.1f}" for title in titles)
            print(f"| {jobs} | {options.readers} {mode} | {cells} |", flush=True)
    return None


if __name__ == "__main__":
    main()
