"""Taskiq: stream broker, which acknowledges once the result is kept, and Redis results.

Its tasks are coroutines, as its users write them.
"""

from __future__ import annotations

import asyncio
import time
import typing as t

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from . import URL
from . import stamp as stamp_now

broker = RedisStreamBroker(
    URL,
    # Otherwise a worker that is killed while it holds the lock blocks redelivery for ever.
    unacknowledged_lock_timeout=60,
).with_result_backend(RedisAsyncResultBackend(URL, prefix_str="bench-result"))


@broker.task(task_name="nothing")
async def nothing() -> None:
    pass


@broker.task(task_name="stamp")
async def stamp(kind: str, due: float, seconds: float) -> None:
    stamp_now(kind, due, 0)
    await asyncio.sleep(seconds)


tasks: dict[str, t.Any] = {"nothing": nothing, "stamp": stamp}
_loop = asyncio.new_event_loop()
_ready: list[bool] = []


def _run(what: t.Coroutine[t.Any, t.Any, t.Any]) -> t.Any:
    if not _ready:
        _ready.append(True)
        _loop.run_until_complete(broker.startup())
    return _loop.run_until_complete(what)


def delay(name: str, *args: t.Any) -> None:
    _run(tasks[name].kiq(*args))


def time_delays(jobs: int) -> list[float]:
    # Inside of the loop, as in the view of an asynchronous application.
    async def times() -> list[float]:
        took = []
        for _ in range(jobs):
            started = time.perf_counter()
            await nothing.kiq()
            took.append(time.perf_counter() - started)
        return took

    return t.cast("list[float]", _run(times()))
