"""Tasks that show what a worker does around them. With ``LONG_WAY`` somebody listens to the signals
of each run, so that Celery's own tracer runs them."""

from __future__ import annotations

import os
import typing as t

from celery import signals
from celery.exceptions import Ignore, Reject
from flask import Flask, current_app

from flask_offload import Offload, UserError, current_job

app = Flask("short")
app.config.update(
    SECRET_KEY="only for tests",
    OFFLOAD_URL=os.environ.get("OFFLOAD_URL"),
    OFFLOAD_NAMESPACE=os.environ.get("OFFLOAD_NAMESPACE"),
    OFFLOAD_MAX_RESULT=20_000,
)
offload = Offload(app)
celery = offload.celery

if "LONG_WAY" in os.environ:

    @signals.task_prerun.connect(weak=False)
    def _listen(**_: t.Any) -> None:
        pass


@offload.task
def none() -> None:
    return None


@offload.task
def value(*args: t.Any, **kwargs: t.Any) -> list[t.Any]:
    return [list(args), kwargs]


@offload.task(bind=True)
def request(self: t.Any) -> dict[str, t.Any]:
    """What the task sees of its request, but for ours."""
    names = {name for name in vars(self.request) if "offload" not in name}
    # Celery takes what it does not know for headers of the sender; and notes two more defaults.
    names -= {"headers", "time_limit", "soft_time_limit"}
    return {
        "request": {name: repr(getattr(self.request, name)) for name in sorted(names)},
        "limits": [self.request.time_limit, self.request.soft_time_limit],
        "children": self.request.children,
        "named": self.request.task,
        "current": celery.current_task.name,
        "worker_task": celery.current_worker_task.name,
        "app": current_app.name,
        "job": current_job.id == self.request.id,
        "attempt": current_job.attempt,
        "fence": current_job.fence,
    }


@offload.task
def fails() -> None:
    raise ValueError("no")


@offload.task
def refuses() -> None:
    raise UserError("Not today.")


@offload.task
def leaves() -> None:
    raise SystemExit(3)


@offload.task
def ignores() -> None:
    raise Ignore


@offload.task
def rejects() -> None:
    raise Reject("no", requeue=False)


@offload.task(bind=True, max_retries=2)
def retries(self: t.Any) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0, exc=ValueError("again"))
    return int(self.request.retries)


@offload.task
def not_json() -> object:
    return object()


@offload.task
def too_large() -> str:
    return "x" * 30_000


@offload.task
def starts_another() -> str:
    return str(none.delay().id)


@offload.task(bind=True)
def adds_a_callback(self: t.Any, word: str) -> str:
    self.request.callbacks = [value.s(more=word)]
    return word


@offload.task(ignore_result=True)
def keeps_nothing() -> int:
    return 1


@offload.task
def prints() -> None:
    print("a", 1)
    current_job.progress(1, 2, "half")
