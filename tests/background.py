"""Background views in tests: the app of ``background_app``, its visitors, and a real worker."""

from __future__ import annotations

import contextlib
import re
import secrets
import typing as t
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import servers
from waiting import wait_until

HTML = "text/html,application/xhtml+xml,*/*;q=0.8"


class Views:
    """The app, in this process and in that of its worker."""

    def __init__(self, folder: Path, url: str, **env: str) -> None:
        self.folder = folder
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.env = {
            "OFFLOAD_URL": url,
            "OFFLOAD_NAMESPACE": f"t{secrets.token_hex(4)}",
            "OFFLOAD_FILES_URL": str(folder / "files"),
            "LEDGER": str(self.ledger),
            "GATES": str(folder),
            **env,
        }
        self.app = self.make()
        self.state = self.app.extensions["offload"]
        self.process: servers.Process | None = None

    def make(self, **config: t.Any) -> Flask:
        with pytest.MonkeyPatch.context() as patch:
            for key, value in self.env.items():
                patch.setenv(key, value)
            import background_app

            return background_app.create_app(**config)

    def work(self, *arguments: str, **env: str) -> servers.Process:
        log = self.folder / f"worker{secrets.token_hex(2)}.log"
        arguments = arguments or ("--pool", "threads")
        process = servers.worker(
            "background_worker.celery", log, *arguments, "--concurrency", "4", env=self.env | env
        )
        self.process = process
        wait_until(lambda: "ready." in process.text, 30, message=lambda: process.text)
        return process

    @property
    def said(self) -> str:
        """All that the worker wrote."""
        return self.process.text if self.process else ""

    def lines(self, start: str = "") -> list[str]:
        """What was noted."""
        return [line for line in self.ledger.read_text().split("\n") if line.startswith(start)]

    def open_gate(self, name: str) -> None:
        (self.folder / name).touch()

    def visitor(self, app: Flask | None = None, **headers: str) -> Visitor:
        return Visitor(app or self.app, self, headers)


class Visitor:
    """Somebody with a browser, or a program: cookies and headers of their own."""

    def __init__(self, app: Flask, views: Views, headers: dict[str, str]) -> None:
        self.client: FlaskClient = app.test_client()
        self.views = views
        self.headers = {"Accept": HTML} | {k.replace("_", "-"): v for k, v in headers.items()}

    def ask(self, path: str, method: str = "GET", **options: t.Any) -> TestResponse:
        headers = {**self.headers, **options.pop("headers", {})}
        return self.client.open(path, method=method, headers=headers, **options)

    def start(self, path: str, method: str = "GET", **options: t.Any) -> str:
        """Start a job; the path of its page, without its key."""
        answer = self.ask(path, method, **options)
        assert answer.status_code == 303, answer.text
        page = self.ask(answer.location)
        return answer.location.partition("?")[0] if page.status_code == 303 else answer.location

    def wait(self, page: str) -> dict[str, t.Any]:
        """The JSON of a job, once it is over."""

        def look() -> dict[str, t.Any] | None:
            seen = self.ask(f"{page}?format=json")
            assert seen.status_code == 200, seen.text
            job: dict[str, t.Any] = seen.get_json()
            return job if job["finished_at"] else None

        return wait_until(look, 30, message=lambda: self.views.said)

    def result(self, path: str, method: str = "GET", **options: t.Any) -> TestResponse:
        """What a view answers in the end, as a browser is led to it."""
        page = self.start(path, method, **options)
        job = self.wait(page)
        moved = self.ask(page)
        assert moved.status_code == 303, (job, moved.text, self.views.said)
        assert moved.location == job["response_url"]
        return self.ask(moved.location)

    def json(self, path: str, method: str = "GET", **options: t.Any) -> dict[str, t.Any]:
        answer = self.result(path, method, **options)
        assert answer.status_code == 200, answer.text
        return dict(answer.get_json())


@contextlib.contextmanager
def working(folder: Path, url: str, *arguments: str, **env: str) -> t.Iterator[Views]:
    views = Views(folder, url, **env)
    process = views.work(*arguments)
    try:
        yield views
    finally:
        process.kill()


def job_id(page: str) -> str:
    found = re.search(r"/jobs/([^/?]+)", page)
    assert found, page
    return found[1]
