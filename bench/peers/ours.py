"""A Flask app with Flask-Offload: every job has a record, kept for a day."""

from __future__ import annotations

import os
import typing as t

from flask import Flask

from flask_offload import Offload

from . import URL, nothing, stamp

app = Flask("bench")
app.config["SECRET_KEY"] = "for the benchmark only"
app.config["OFFLOAD_URL"] = URL
app.config["OFFLOAD_NAMESPACE"] = "bench"
if keep := os.environ.get("BENCH_RETENTION"):
    app.config["OFFLOAD_RETENTION"] = {"succeeded": float(keep)}
offload = Offload(app)
celery = offload.celery
functions: list[t.Callable[..., None]] = [nothing, stamp]
tasks = {f.__name__: offload.task(name=f.__name__)(f) for f in functions}


def delay(name: str, *args: t.Any) -> None:
    tasks[name].delay(*args)


def later(seconds: float, name: str, *args: t.Any) -> None:
    tasks[name].apply_async(args, countdown=seconds)


def many(name: str, calls: t.Sequence[t.Sequence[t.Any]]) -> None:
    tasks[name].enqueue_many(calls)
