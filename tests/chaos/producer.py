"""A producer: ``python producer.py '{"count": 100}'``, and what came of each wish in the ledger."""

from __future__ import annotations

import json
import os
import sys
import time
import typing as t
from pathlib import Path

from flask import Flask
from ledger import Ledger
from tasks_app import create_app

from flask_offload import EnqueueError, PayloadTooLarge

__all__ = ["enqueue", "produce"]


def enqueue(
    app: Flask, ledger: Ledger, task: str, token: str, *args: t.Any, **options: t.Any
) -> t.Any:
    """Enqueue one job and note the outcome; the job, or ``None``."""
    found = app.extensions["offload"].celery.tasks[f"tasks_app.{task}"]
    ledger.note("try", token)
    try:
        job = found.options(**options).delay(token, *args)
    except (EnqueueError, PayloadTooLarge) as error:
        # "It will not run", unless the error itself says that nobody knows.
        kind = "unknown" if "may have been accepted" in str(error) else "refused"
        ledger.note(kind, token, why=f"{type(error).__name__}: {error}")
        return None
    except Exception as error:
        ledger.note("unknown", token, why=repr(error))
        raise
    ledger.note("confirmed", token, job=job.id)
    return job


def produce(
    app: Flask,
    ledger: Ledger,
    *,
    count: int,
    prefix: str = "p",
    task: str = "job",
    args: t.Sequence[t.Any] = (),
    rate: float = 0,
    seconds: float = 600,
    delay: t.Sequence[float] = (),
    **options: t.Any,
) -> None:
    """Enqueue until ``count`` were confirmed, or the time is over.

    :param rate: How many a second; 0 for as many as go.
    :param delay: Least and most delay in seconds, spread evenly.
    """
    started = time.monotonic()
    confirmed = tried = 0
    while confirmed < count and time.monotonic() - started < seconds:
        due = started + tried / rate if rate else 0
        time.sleep(max(0, due - time.monotonic()))
        if delay:
            options["delay"] = delay[0] + (delay[1] - delay[0]) * (tried % count) / count
        job = enqueue(app, ledger, task, f"{prefix}-{tried}", *args, **options)
        tried += 1
        if job is not None:
            confirmed += 1
        elif not rate:
            time.sleep(0.05)


if __name__ == "__main__":
    produce(
        create_app(os.environ), Ledger(Path(os.environ["CHAOS_LEDGER"])), **json.loads(sys.argv[1])
    )
    print("produced.", flush=True)
