"""The tutorial's app for tests: in a folder of its own, so that no test meets the demo's instance
folder, and in processes started as the tutorial starts them."""

from __future__ import annotations

import contextlib
import html
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from waiting import wait_until

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "tutorial"
# Last, so that its plainly named modules hide nobody else's.
sys.path.append(str(EXAMPLE))

#: Settings of the shell that runs the tests, and that would change what is tested.
FOREIGN = ("CELERY_", "FLASK_", "MAIL_", "OFFLOAD_", "QUOTE_", "DEMO_", "OUTBOX_", "SECRET_KEY")


def copy_to(folder: Path) -> Path:
    """Copy the example, without what it has kept."""
    ignore = shutil.ignore_patterns("instance", "__pycache__")
    return Path(shutil.copytree(EXAMPLE, folder / "tutorial", ignore=ignore))


def environment(**more: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    return {**clean, "PYTHONUNBUFFERED": "1", **more}


class Program:
    """A program that a test runs, with all that it says."""

    def __init__(self, command: list[str], folder: Path, env: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            # A group of its own, as a shell gives to each command.
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str, timeout: float = 30) -> re.Match[str]:
        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.said)
            if not match and self.process.poll() is not None:
                raise AssertionError(f"It ended with {self.process.returncode}:\n{self.said}")
            return match

        return wait_until(found, timeout, message=lambda: f"{pattern!r} in:\n{self.said}")

    def press_ctrl_c(self) -> None:
        """As a terminal does it: all of the group are told."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 30) -> int:
        """Ask it to stop, and wait for its end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"It did not stop within {timeout} s:\n{self.said}") from None


@contextlib.contextmanager
def running(name: str, *command: str, folder: Path, **env: str) -> Iterator[Program]:
    program = Program(list(command), folder, environment(**env), folder.parent / f"{name}.log")
    try:
        yield program
    finally:
        program.stop()


@contextlib.contextmanager
def web(folder: Path, port: int = 0, **env: str) -> Iterator[str]:
    """Start the app as the tutorial does; gives its address."""
    command = (sys.executable, "-m", "flask", "run", "--port", str(port))
    with running("web", *command, folder=folder, FLASK_APP="app", **env) as program:
        yield program.wait_for(r"Running on (http://\S+)")[1]


@contextlib.contextmanager
def worker(folder: Path, **env: str) -> Iterator[Program]:
    """Start a worker as the tutorial does."""
    celery = str(Path(sys.executable).with_name("celery"))
    command = (celery, "-A", "app.celery", "worker", "--loglevel=info", "--concurrency=2")
    with running("worker", *command, folder=folder, **env) as program:
        program.wait_for(r"\bready\.")
        yield program


class Person(httpx.Client):
    """Somebody with a browser, at one site."""

    def __init__(self, address: str) -> None:
        super().__init__(base_url=address, timeout=30, trust_env=False)

    def fill(self, path: str, **fields: str) -> httpx.Response:
        """Fill in a form of the page ``/tasks`` and send it."""
        page = self.get("/tasks")
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)
        assert token, page.text
        return self.post(path, data={"csrf_token": token[1], **fields})

    def read(self, url: str) -> str:
        """What a page says; the first visit to a job leads to its address without the key."""
        page = self.get(url, follow_redirects=True)
        assert page.status_code == 200, page.text
        return text_of(page.text)

    def job(self, url: str) -> dict[str, Any]:
        """What the page of a job says to a program."""
        response = self.get(url, headers={"Accept": "application/json"})
        assert response.status_code == 200, response.text
        return dict(response.json())

    def wait_for_job(
        self, url: str, state: str = "succeeded", timeout: float = 60
    ) -> dict[str, Any]:
        def finished() -> dict[str, Any] | None:
            job = self.job(url)
            return job if job["state"] in ("succeeded", "failed", "cancelled", "dead") else None

        job = wait_until(finished, timeout, interval=0.1, message=lambda: str(self.job(url)))
        assert job["state"] == state, job
        return job


def text_of(page: str) -> str:
    """What a person reads, roughly: no tags, single blanks."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())
