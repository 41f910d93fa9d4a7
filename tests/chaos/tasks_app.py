"""The app of the chaos suite. Its tasks note in the ledger what happens to them."""

from __future__ import annotations

import fcntl
import os
import signal
import time
import typing as t
import uuid
from contextlib import contextmanager
from pathlib import Path

from celery.utils.nodenames import gethostname
from flask import Flask
from ledger import Ledger

from flask_offload import Offload, UserError, current_job

__all__ = ["create_app"]

#: Read from the environment, and passed on where they are set.
SETTINGS = (
    "OFFLOAD_URL OFFLOAD_BROKER_URL OFFLOAD_NAMESPACE OFFLOAD_GRACE OFFLOAD_LEASE "
    "OFFLOAD_FILES_URL OFFLOAD_MAX_DELIVERIES OFFLOAD_PUBLISH_TIMEOUT OFFLOAD_RETENTION "
    "OFFLOAD_PARK_FOR"
).split()


def create_app(env: t.Mapping[str, str]) -> Flask:
    """An app with the settings in ``env``.

    ``CHAOS_LEDGER`` names the ledger, ``CHAOS_WORKER`` the worker, for whose kill a start is
    counted; with ``CHAOS_NEW`` it is the release that knows one more task.
    """
    app = Flask("chaos")
    app.config["SECRET_KEY"] = "only for tests"
    app.config.update({key: env[key] for key in SETTINGS if env.get(key)})
    if env.get("VISIBILITY_TIMEOUT"):
        timeout = float(env["VISIBILITY_TIMEOUT"])
        app.config["CELERY"] = {"broker_transport_options": {"visibility_timeout": timeout}}
    ledger = Ledger(Path(env["CHAOS_LEDGER"]))
    declare(Offload(app), ledger, env)
    return app


def declare(offload: Offload, ledger: Ledger, env: t.Mapping[str, str]) -> None:
    name = env.get("CHAOS_WORKER") or gethostname()

    @contextmanager
    def run_of(token: str) -> t.Iterator[str]:
        run = uuid.uuid4().hex
        ledger.note("start", token, run=run, job=current_job.id, worker=name)
        yield run
        # Not in a finally: what was stopped in the middle has not ended.
        ledger.note("end", token, run=run)

    @offload.task
    def job(token: str, seconds: float = 0, padding: str = "") -> str:
        with run_of(token) as run:
            time.sleep(seconds)
        return run

    @offload.task
    def busy(token: str, seconds: float) -> str:
        """Takes all the time of its thread."""
        with run_of(token) as run:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                sum(range(1_000))
        return run

    @offload.task
    def fenced(token: str, seconds: float) -> str:
        """Has an effect on a resource that knows the newest fence, and refuses older ones."""
        with run_of(token) as run:
            fence = int(t.cast("t.Any", current_job).fence)
            resource = ledger.path.with_name(f"fence.{token}")
            newest(resource, fence)
            time.sleep(seconds)
            ledger.note("effect" if newest(resource, fence) else "stale", token, fence=fence)
        return run

    @offload.task
    def poison(token: str) -> None:
        """Takes its worker process with it, each time."""
        ledger.note("start", token, run=uuid.uuid4().hex, job=current_job.id, worker=name)
        os.kill(os.getpid(), signal.SIGKILL)

    @offload.task(retries=2, retry_backoff=1, retry_jitter=False)
    def flaky(token: str) -> str:
        with run_of(token) as run:
            if current_job.attempt < 2:
                raise ConnectionError("not at the first attempt")
        return run

    @offload.task
    def fail(token: str) -> None:
        with run_of(token):
            pass
        raise UserError("It fails, as it should.")

    @offload.task
    def total(numbers: list[t.Any], token: str) -> int:
        with run_of(token):
            return len(numbers)

    if env.get("CHAOS_NEW"):

        @offload.task
        def new(token: str) -> str:
            with run_of(token) as run:
                pass
            return run


def newest(resource: Path, fence: int) -> bool:
    """Whether no newer fence was seen, under a lock."""
    with resource.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        seen = max((int(line) for line in file.read().split()), default=0)
        if fence >= seen:
            file.write(f"{fence}\n")
        return fence >= seen
