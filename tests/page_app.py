"""An app whose jobs show each thing that a job page can show; its worker is a real one."""

from __future__ import annotations

import json
import os
import struct
import time
import typing as t
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flask import Flask, redirect, render_template_string, request

import servers
from flask_offload import Offload, UserError, current_job
from waiting import wait_until

PAGE = """<!doctype html><html lang="en"><title>A page of the app's own</title>
<meta name="viewport" content="width=device-width">
<style>
  body { font: 18px/1.5 Georgia, serif; --offload-accent: #7b1fa2; --offload-radius: 0 }
</style>
<h1>Orders</h1>
"""


def png(width: int = 320, height: int = 120) -> bytes:
    """A picture: from one colour to another."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    row = b"\0" + b"".join(bytes((11, 87, 208 * x // width)) for x in range(width))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row * height))
    return b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b"")


def pdf() -> bytes:
    """One page with a line of text."""
    text = b"BT /F1 24 Tf 72 720 Td (Orders in October) Tj ET"
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >> stream\n%s\nendstream" % (len(text), text),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, offsets = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        offsets.append(len(out))
        out += b"%d 0 obj %s endobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return out + (
        b"xref\n0 6\n0000000000 65535 f \n%strailer << /Size 6 /Root 1 0 R >>\n"
        b"startxref\n%d\n%%%%EOF" % (table, len(out))
    )


def create_app(**config: t.Any) -> Flask:
    app = Flask("page_app", root_path=str(Path(__file__).parent))
    app.config.update(
        SECRET_KEY="only for tests",
        OFFLOAD_URL=os.environ.get("OFFLOAD_URL"),
        OFFLOAD_NAMESPACE=os.environ.get("OFFLOAD_NAMESPACE"),
        OFFLOAD_FILES_URL=os.environ.get("OFFLOAD_FILES_URL"),
        OFFLOAD_LEASE=4,
    )
    app.config.update(config)
    offload = Offload(app)
    declare(offload)
    add_pages(app)
    return app


def declare(offload: Offload) -> None:
    @offload.task(title="Give {value}", repeatable=True)
    def give(value: t.Any) -> t.Any:
        return value

    @offload.task(title="Draw a picture")
    def draw() -> t.Any:
        current_job.attach("numbers.csv", b"a,b\n1,2\n")
        return current_job.attach("picture.png", png())

    @offload.task(title="Print the orders")
    def printed() -> t.Any:
        return current_job.attach("orders.pdf", pdf())

    @offload.task(title="Read the orders")
    def read(steps: int, pause: float) -> str:
        for step in current_job.track(range(1, steps + 1), "Reading"):
            current_job.log(f"order {step} of {steps}")
            time.sleep(pause)
        return "All orders are read."

    @offload.task(title="Wait for the bank")
    def hold(seconds: float) -> str:
        current_job.progress(0, message="Asking the bank")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.05)
        return "The bank has answered."

    @offload.task(title="Bake for {seconds} s")
    def bake(seconds: float) -> str:
        time.sleep(seconds)
        return "Baked."

    @offload.task(title="Report for {month}")
    def refuse(month: str) -> None:
        current_job.log(f"reading {month}")
        raise UserError("The month has no data yet.")

    @offload.task(title="Break", repeatable=True)
    def break_() -> None:
        current_job.log("breaking")
        raise KeyError("a <b>secret</b>")

    @offload.task(title="Send the letter", rate_limit="1/m")
    def letter() -> str:
        return "Sent."

    @offload.task(title="Of another queue", queue="other")
    def elsewhere() -> None: ...

    @offload.task(title="Flaky", retries=4, retry_backoff=30, retry_jitter=False)
    def flaky() -> None:
        raise ConnectionError("no answer")


def add_pages(app: Flask) -> None:
    celery = app.extensions["offload"].celery

    @app.get("/start/<name>")
    def start(name: str) -> t.Any:
        job = celery.tasks[f"page_app.{name}"].delay(**json.loads(request.args.get("with", "{}")))
        return redirect(job.url, 303)

    @app.get("/embed/<name>")
    def embed(name: str) -> str:
        job = celery.tasks[f"page_app.{name}"].delay(**json.loads(request.args.get("with", "{}")))
        return PAGE + render_template_string("{{ offload_job(job) }}", job=job)

    @app.get("/embed-by-hand/<name>")
    def by_hand(name: str) -> str:
        job = celery.tasks[f"page_app.{name}"].delay(**json.loads(request.args.get("with", "{}")))
        by_hand = '{{ offload_scripts() }}<offload-job href="{{ job.url }}"></offload-job>'
        return PAGE + render_template_string(by_hand, job=job)

    @app.get("/show/<job_id>")
    def show(job_id: str) -> str:
        return PAGE + render_template_string("{{ offload_job(id) }}", id=job_id)

    @app.get("/mine")
    def mine() -> str:
        return PAGE + render_template_string("{{ offload_jobs() }}")


class Pages:
    """The app on a real server, and its workers."""

    def __init__(self, folder: Path, url: str, namespace: str) -> None:
        self.folder = folder
        self.env = {
            "OFFLOAD_URL": url,
            "OFFLOAD_NAMESPACE": namespace,
            "OFFLOAD_FILES_URL": str(folder / "files"),
        }
        self.workers: list[servers.Process] = []
        self.config: dict[str, t.Any] = {}
        self.url = ""
        self.app = create_app(**self.env)
        self.state = self.app.extensions["offload"]

    def delay(self, name: str, **arguments: t.Any) -> t.Any:
        """Start a job that belongs to nobody."""
        return self.state.celery.tasks[f"page_app.{name}"].delay(**arguments)

    def worker(self, pool: str = "threads", slots: int = 1, *more: str) -> servers.Process:
        log = self.folder / f"worker{len(self.workers)}.log"
        name = f"w{len(self.workers)}@pages"
        arguments = ("-n", name, "--pool", pool, "--concurrency", str(slots), *more)
        process = servers.worker("page_app.celery", log, *arguments, env=self.env)
        self.workers.append(process)
        wait_until(lambda: "ready." in process.text, 30, message=lambda: process.text)
        return process

    def close(self) -> None:
        for process in self.workers:
            process.kill()

    @contextmanager
    def served(self, app: t.Any = None, port: int = 0) -> Iterator[str]:
        with servers.web(app or self.app, port=port) as self.url:
            yield self.url


if "OFFLOAD_NAMESPACE" in os.environ:
    celery = create_app().extensions["offload"].celery
