"""A Celery app without Flask, on the line by its settings alone: ``celery -A plain_app worker``."""

from __future__ import annotations

import json
import os
import time
import typing as t

from celery import Celery

from sample import note

TRANSPORT = "flask_offload.transport:Transport"
BACKEND = "flask_offload.backend:OffloadBackend"


def create_app(url: str, namespace: str, **config: t.Any) -> Celery:
    app = Celery("plain", set_as_current=False)
    app.conf.update(
        broker_url=url,
        broker_transport=TRANSPORT,
        broker_transport_options={"namespace": namespace, "lease": 2},
        broker_connection_retry_on_startup=True,
        result_backend=f"{BACKEND}+{url}",
        result_backend_transport_options={"namespace": namespace},
    )
    app.conf.update(config)
    declare(app)
    return app


def declare(app: Celery) -> None:
    def task(name: str, **options: t.Any) -> t.Any:
        return app.task(name=f"plain.{name}", shared=False, **options)

    @task("add")
    def add(a: int, b: int = 1) -> int:
        return a + b

    @task("total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @task("fail")
    def fail() -> None:
        raise ValueError("on purpose")

    @task("quiet", ignore_result=True)
    def quiet(ledger: str) -> str:
        note(ledger, "ran")
        return "nobody reads this"

    @task("flaky", bind=True, max_retries=1)
    def flaky(self: t.Any, pause: float) -> str:
        if self.request.retries == 0:
            raise self.retry(countdown=pause)
        return "at last"

    @task("due", bind=True)
    def due(self: t.Any) -> t.Any:
        return self.request.eta

    @task("other", bind=True)
    def other(self: t.Any) -> t.Any:
        return self.app.tasks["plain.add"].apply_async((1, 2), task_id=f"{self.request.id}-other")

    @task("large")
    def large(size: int) -> str:
        return "x" * size

    @task("size")
    def size(text: str) -> int:
        return len(text)

    @task("run")
    def run(ledger: str, seconds: float = 0) -> None:
        note(ledger, "start")
        time.sleep(seconds)
        note(ledger, "end")

    @task("survive", acks_late=True, reject_on_worker_lost=True)
    def survive(ledger: str, seconds: float) -> None:
        note(ledger, "start")
        time.sleep(seconds)
        note(ledger, "end")


if "PLAIN_URL" in os.environ:
    celery = create_app(
        os.environ["PLAIN_URL"],
        os.environ["PLAIN_NAMESPACE"],
        **json.loads(os.environ.get("PLAIN_CONFIG", "{}")),
    )
