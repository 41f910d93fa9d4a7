"""How long a person waits for the tutorial's two buttons, and what others feel meanwhile.

    .venv/bin/python bench/tutorial.py            # DEMO_SECONDS=15, about a minute

Starts a copy of the tutorial's app (``flask run``, threaded) and one worker on its embedded Valkey,
and asks over HTTP, one connection a request.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
TUTORIAL = HERE.parent / "examples" / "tutorial"
SECONDS = int(os.environ.get("DEMO_SECONDS", "15"))
ROUNDS = 50


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def timed(url: str) -> float:
    started = time.perf_counter()
    with urllib.request.urlopen(url, timeout=SECONDS * 4 + 30) as answer:
        answer.read()
    return time.perf_counter() - started


def spread(times: list[float]) -> str:
    low, high = min(times) * 1000, max(times) * 1000
    return f"{statistics.median(times) * 1000:10.1f} ms   ({low:.1f} to {high:.1f}, n={len(times)})"


def in_flight(url: str, count: int) -> tuple[list[threading.Thread], list[float]]:
    times: list[float] = []
    threads = [threading.Thread(target=lambda: times.append(timed(url))) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, times


def measure(base: str) -> None:
    blocking, background = f"{base}/long_running_task", f"{base}/long_running_task_celery"
    constant, page = f"{base}/constant", f"{base}/tasks"
    for url in (constant, page, background):
        timed(url)  # templates, first connection, embedded server
    both: dict[str, list[float]] = {constant: [], background: []}
    for _ in range(ROUNDS):
        for url, times in both.items():
            times.append(timed(url))
    print(f"a view that returns a constant    {spread(both[constant])}")
    print(f"/long_running_task_celery         {spread(both[background])}")
    ratio = statistics.median(both[background]) / statistics.median(both[constant])
    print(f"  as a multiple of the constant   {ratio:10.1f}")
    print(f"/long_running_task                {spread([timed(blocking)])}")
    print(f"/tasks, nothing in flight         {spread([timed(page) for _ in range(20)])}")
    for name, url in (("long_running_task", blocking), ("long_running_task_celery", background)):
        threads, times = in_flight(url, 10)
        time.sleep(0.5)
        seen = [timed(page) for _ in range(20)]
        print(f"/tasks, ten /{name} in flight\n{'':34}{spread(seen)}")
        for thread in threads:
            thread.join()
        print(f"  those ten{'':23}{spread(times)}")


def run(start: Callable[..., subprocess.Popen[bytes]], folder: Path) -> None:
    port = free_port()
    flask = [sys.executable, "-m", "flask", "--app", "tutorial_app"]
    web = start([*flask, "run", "--port", str(port)], folder / "web.log")
    worker = start([*flask, "offload", "worker"], folder / "worker.log")
    try:
        base = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while "ready." not in (folder / "worker.log").read_text():
            if time.monotonic() > deadline:
                raise SystemExit((folder / "worker.log").read_text())
            time.sleep(0.1)
        measure(base)
    finally:
        for process in (web, worker):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A copy, because what is queued here would be found again by the next demo.
        copy = folder / "tutorial"
        shutil.copytree(TUTORIAL, copy, ignore=shutil.ignore_patterns("instance", "__pycache__"))
        env = os.environ | {
            "DEMO_SECONDS": str(SECONDS),
            "PYTHONPATH": os.pathsep.join([str(HERE), str(copy)]),
            "PYTHONUNBUFFERED": "1",
        }

        def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
            with log.open("wb") as output:
                return subprocess.Popen(
                    command, stdout=output, stderr=output, env=env, cwd=copy,
                    start_new_session=True,
                )  # fmt: skip

        run(start, folder)


if __name__ == "__main__":
    main()
