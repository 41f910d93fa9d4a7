"""RQ, with retries: a job whose worker was killed is otherwise put among the failed ones."""

from __future__ import annotations

import typing as t

from redis import Redis
from rq import Queue, Retry

from . import URL, nothing, stamp

queue = Queue(connection=Redis.from_url(URL))
tasks = {f.__name__: f for f in (nothing, stamp)}


def delay(name: str, *args: t.Any) -> None:
    queue.enqueue(tasks[name], args=args, retry=Retry(max=3))


def many(name: str, calls: t.Sequence[t.Sequence[t.Any]]) -> None:
    data = [Queue.prepare_data(tasks[name], args=tuple(a), retry=Retry(max=3)) for a in calls]
    queue.enqueue_many(data)
