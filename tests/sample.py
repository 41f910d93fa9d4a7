"""An app for tests: the tests enqueue, and workers started by ``celery -A sample.celery`` run."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import time
import typing as t
from pathlib import Path

import billiard
from celery import shared_task
from celery.exceptions import Ignore, Reject
from flask import Flask, current_app, g

from flask_offload import Offload, UserError, current_job


def create_app(**config: t.Any) -> Flask:
    app = Flask("sample")
    app.config.update(
        SECRET_KEY="only for tests",
        OFFLOAD_URL=os.environ.get("OFFLOAD_URL"),
        OFFLOAD_BROKER_URL=os.environ.get("OFFLOAD_BROKER_URL"),
        OFFLOAD_NAMESPACE=os.environ.get("OFFLOAD_NAMESPACE"),
        OFFLOAD_LEASE=os.environ.get("OFFLOAD_LEASE"),
        OFFLOAD_PARK_FOR=os.environ.get("OFFLOAD_PARK_FOR"),
        OFFLOAD_GRACE=os.environ.get("OFFLOAD_GRACE"),
        OFFLOAD_MAX_DELIVERIES=os.environ.get("OFFLOAD_MAX_DELIVERIES"),
        OFFLOAD_ALLOW_EVICTION=os.environ.get("OFFLOAD_ALLOW_EVICTION"),
        OFFLOAD_FILES_URL=os.environ.get("OFFLOAD_FILES_URL"),
    )
    if os.environ.get("VISIBILITY_TIMEOUT"):
        timeout = float(os.environ["VISIBILITY_TIMEOUT"])
        app.config["CELERY"] = {"broker_transport_options": {"visibility_timeout": timeout}}
    app.config.update(config)
    offload = Offload(app)
    declare(offload)
    return app


def note(ledger: str, word: str) -> None:
    """One line in a file outside the server: what really happened."""
    with Path(ledger).open("a") as file:
        file.write(f"{word}\n")


def declare(offload: Offload) -> None:
    @offload.task(title="Add {a} and {b}")
    def add(a: int, b: int = 1) -> int:
        print("adding", a, b)
        return a + b

    @offload.task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @offload.task
    def count(steps: int, pause: float = 0.05) -> str:
        for step in current_job.track(range(steps), "Counting"):
            current_job.log(f"step {step}")
            time.sleep(pause)
        return "counted"

    @offload.task
    def sleep(seconds: float, ledger: str = "") -> str:
        if ledger:
            note(ledger, "start")
        time.sleep(seconds)
        if ledger:
            note(ledger, "end")
        return "slept"

    def busy(ledger: str, seconds: float) -> None:
        # A loop that never asks for anything.
        note(ledger, "start")
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                pass
        except BaseException:
            note(ledger, "tidied")
            raise
        note(ledger, "end")

    @offload.task
    def spin(ledger: str, seconds: float) -> None:
        busy(ledger, seconds)

    @offload.task(interrupt=False)
    def steady(ledger: str, seconds: float) -> None:
        busy(ledger, seconds)

    @offload.task(name="sample.note")
    def write(ledger: str, word: str) -> None:
        note(ledger, word)

    @offload.task
    def moment() -> float:
        return time.time()

    @offload.task(retries=2, retry_backoff=1, retry_jitter=False, sensitive=["password"])
    def log_in(user: str, password: str) -> None:
        print("trying", user, password)
        raise PermissionError(f"wrong password {password}")

    @offload.task(retries=5)
    def give_up() -> None:
        raise UserError("The month has no data yet.")

    @offload.task
    def die(ledger: str) -> None:
        note(ledger, "start")
        os.kill(os.getpid(), signal.SIGKILL)

    @offload.task
    def fork() -> None:
        child = os.fork()
        if child == 0:
            try:
                # What an interpreter does at its end.
                atexit._run_exitfuncs()
            finally:
                os._exit(0)
        os.waitpid(child, 0)

    @offload.task
    def leave(ledger: str) -> None:
        note(ledger, "start")
        raise SystemExit(3)

    @offload.task
    async def double(number: int) -> int:
        await asyncio.sleep(0.01)
        current_job.log("awaited")
        return number * 2

    @offload.task
    def unserializable() -> object:
        return object()

    @offload.task
    def large(size: int) -> str:
        return "x" * size

    @offload.task
    def attach(name: str, text: str) -> dict[str, t.Any]:
        return current_job.attach(name, text.encode())

    @offload.task(bind=True)
    def replaced(self: t.Any, a: int) -> t.Any:
        raise self.replace(add.s(a, 10))

    @offload.task
    def ignored() -> None:
        raise Ignore

    @offload.task
    def rejected() -> None:
        raise Reject("not mine", requeue=False)

    @offload.task(ignore_result=True)
    def quiet() -> str:
        return "nobody reads this"

    @offload.task
    def context() -> dict[str, t.Any]:
        first = not hasattr(g, "seen")
        g.seen = True
        return {"app": current_app.name, "fresh": first, "nested": inner(), "job": current_job.id}

    @offload.task
    def inner() -> bool:
        # Called as a function: the same context as its caller's.
        return hasattr(g, "seen")

    @offload.task
    def parent() -> str:
        return str(add.delay(1, 1).id)


@shared_task
def shared() -> str:
    return str(current_app.name)


app = create_app()
celery = app.extensions["offload"].celery
if "SAMPLE_SPAWN" in os.environ:
    # What billiard does by itself on macOS.
    billiard.set_start_method("spawn", force=True)
if "SAMPLE_WITHOUT" in os.environ:
    # A worker that was deployed before the task was written.
    celery.tasks.unregister(f"sample.{os.environ['SAMPLE_WITHOUT']}")
