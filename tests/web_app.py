"""The job pages in tests: a bare Flask app on a real server, over a real Valkey.

What a worker would do is done by hand, through the same store.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from flask import Flask, Response, jsonify, redirect, request
from markupsafe import Markup

import servers
from flask_offload._config import Settings
from flask_offload._control import Control
from flask_offload._jobs import JobState, Progress
from flask_offload._store import Deadline, Feed, FileStore, NewJob, Store, WorkerInfo
from flask_offload._web import Access, jobs_list, make_blueprint, register_error_handlers
from flask_offload._web.sse import Streams

REVOKED = json.dumps({"status": "REVOKED", "result": {"exc_type": "TaskRevokedError"}})
WORKER = WorkerInfo(name="worker@test", pid=1, queues=("celery",))


class Engine:
    """What Control needs of a Celery app."""

    def __init__(self, store: Store, files: FileStore) -> None:
        self.store = store
        self.files = files
        self.feed = Feed(store)
        self.stopped: list[str] = []
        self.tasks: dict[str, Any] = {}

    def revoked_result(self, job_id: str) -> str:
        return REVOKED

    def stop_running(self, job_id: str) -> None:
        self.stopped.append(job_id)


class Site:
    """An app with the job pages, and the hand of its worker."""

    def __init__(self, url: str, directory: Path, **options: Any) -> None:
        self.settings = Settings(
            directory=directory,
            files_url=str(directory / "files"),
            namespace=uuid.uuid4().hex,
            **options,
        )
        self.store = Store(url, self.settings)
        self.engine = Engine(self.store, FileStore(self.settings.files_url, 10_000_000))
        self.control = Control(self.engine)  # type: ignore[arg-type]
        self.access = Access(self.settings, lambda: "a secret for tests")
        self.app = Flask(__name__)
        self.app.secret_key = "a secret for tests"
        self.debug = False
        self.app.register_blueprint(
            make_blueprint(self.settings, self.control, self.access, debug_hint=lambda: self.debug)
        )
        register_error_handlers(self.app)
        self.app.after_request(self.access.after_request)
        self.app.add_url_rule("/start", view_func=self._start, methods=["POST"])
        self.app.add_url_rule("/go", view_func=self._go, methods=["GET", "POST"])
        self.app.add_url_rule("/mine", view_func=self._mine)
        self.url = ""

    @property
    def streams(self) -> Streams:
        streams: Streams = self.app.view_functions["offload.events"].__self__.streams  # type: ignore[attr-defined]
        return streams

    def _start(self) -> Response:
        job_id = self.enqueue(owners=self.access.identify(), **request.form)
        return jsonify(id=job_id, url=self.access.job_url(job_id))

    def _go(self) -> Any:
        return redirect(self.access.job_url(self.enqueue(owners=self.access.identify())), 303)

    def _mine(self) -> str:
        return f"<!doctype html><title>Mine</title>{self.jobs(20)}"

    def jobs(self, limit: int) -> Markup:
        return jobs_list(self.control, self.access, limit)

    # -- what the app and its worker do

    def new(self, job_id: str, **fields: Any) -> NewJob:
        fields = {"title": "Monthly report", "queue": "celery", **fields}
        return NewJob(id=job_id, task="app.report", **fields)

    def enqueue(self, job_id: str = "", *, state: JobState = JobState.QUEUED, **fields: Any) -> str:
        job_id = job_id or str(uuid.uuid4())
        self.store.enqueue(self.new(job_id, **fields), state=state, deadline=Deadline.after(5))
        return job_id

    def run(self, job_id: str, **fields: Any) -> None:
        job = self.new(job_id, **fields)
        assert self.store.start(job, worker=WORKER.name, max_deliveries=5).verdict == "run"

    def say(self, job_id: str, *lines: str, done: float = 0, total: float | None = None,
            message: str = "") -> None:  # fmt: skip
        progress = Progress(done, total, message)
        self.store.progress(job_id, progress, [(1_800_000_000.0, line) for line in lines])

    def finish(
        self, job_id: str, result: Any = None, *, state: str = "succeeded", **fields: str
    ) -> None:
        assert self.store.finish(job_id, state, json.dumps({"result": result}), fields)

    def attach(self, job_id: str, name: str, data: bytes) -> dict[str, Any]:
        file = self.engine.files.save(job_id, name, data)
        self.store.attach(job_id, file)
        return file

    def worker(self, name: str = WORKER.name, queues: tuple[str, ...] = ("celery",)) -> None:
        self.store.beat(WorkerInfo(name=name, queues=queues), 60)

    # -- its visitors

    @contextmanager
    def served(self, *, threaded: bool = True) -> Iterator[str]:
        with servers.web(self.app, threaded=threaded) as self.url:
            yield self.url

    def visitor(self, **headers: str) -> httpx.Client:
        """A browser with its own cookies; gets JSON."""
        return httpx.Client(
            base_url=self.url,
            headers={"Accept": "application/json", "Sec-Fetch-Site": "same-origin", **headers},
            timeout=20,
        )

    def browser(self) -> httpx.Client:
        """A browser that gets pages."""
        return self.visitor(Accept="text/html,application/xhtml+xml,*/*;q=0.8")


def start(site: Site, client: httpx.Client, **fields: str) -> str:
    """Have a visitor start a job; its id."""
    return str(client.post("/start", data=fields).json()["id"])
