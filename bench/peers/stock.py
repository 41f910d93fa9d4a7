"""Celery with its own Redis transport and backend: late acknowledgement, results kept."""

from __future__ import annotations

import typing as t

from celery import Celery

from . import URL, nothing, stamp

app = Celery("bench", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_hijack_root_logger=True,
    broker_connection_retry_on_startup=True,
)
tasks = {f.__name__: app.task(name=f.__name__)(f) for f in (nothing, stamp)}


def delay(name: str, *args: t.Any) -> None:
    tasks[name].delay(*args)


def later(seconds: float, name: str, *args: t.Any) -> None:
    tasks[name].apply_async(args, countdown=seconds)
