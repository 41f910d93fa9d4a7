"""Huey on Redis, results kept, also those that are None. It has no acknowledgement."""

from __future__ import annotations

import typing as t

from huey import RedisHuey

from . import URL, nothing, stamp

huey = RedisHuey("bench", url=URL, store_none=True)
tasks = {f.__name__: huey.task()(f) for f in (nothing, stamp)}


def delay(name: str, *args: t.Any) -> None:
    tasks[name](*args)


def later(seconds: float, name: str, *args: t.Any) -> None:
    tasks[name].schedule(args=args, delay=seconds)
