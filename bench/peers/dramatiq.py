"""Dramatiq: Redis broker, which acknowledges when a job is over, and Redis results."""

from __future__ import annotations

import typing as t

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from . import URL, nothing, stamp

broker = RedisBroker(url=URL)
# With keys that start with a name, so that they can be counted.
results = RedisBackend(url=URL, use_namespace_prefix_keys=True)
broker.add_middleware(Results(backend=results, store_results=True))
dramatiq.set_broker(broker)
tasks = {f.__name__: dramatiq.actor(f) for f in (nothing, stamp)}


def delay(name: str, *args: t.Any) -> None:
    tasks[name].send(*args)


def later(seconds: float, name: str, *args: t.Any) -> None:
    tasks[name].send_with_options(args=args, delay=int(seconds * 1000))
