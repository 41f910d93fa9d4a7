"""``inspect scheduled`` on our transport: what is due later waits on the server, not in a worker.

A worker answers for the queues that it listens to, so those that share one tell of the same jobs.
Imported by workers only.
"""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime

from celery.worker import control

from .._store import Delivery
from .message import ETA, delivered

__all__ = ["scheduled"]

#: Most jobs in one answer: those that are due first.
LIMIT = 100
#: What Celery says of all that waits for its time.
TIMER_PRIORITY = 6

_in_memory = control.scheduled


@control.inspect_command(name="scheduled", alias="dump_schedule")
def scheduled(state: t.Any, **kwargs: t.Any) -> list[dict[str, t.Any]]:
    """List of currently scheduled ETA/countdown tasks."""
    found: list[dict[str, t.Any]] = _in_memory(state)
    channel = state.consumer.connection.default_channel
    engine = getattr(channel, "engine", None)
    if engine is None:
        return found
    queues = list(state.app.amqp.queues.consume_from)
    for due_at, delivery in engine.store.scheduled(queues, LIMIT):
        try:
            found.append(_entry(state, channel, due_at, delivery))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue  # What cannot be read is buried once it is due.
    return found


def _entry(state: t.Any, channel: t.Any, due_at: float, delivery: Delivery) -> dict[str, t.Any]:
    message = channel.message_to_python(delivered(delivery))
    headers, properties = message.headers, message.properties
    eta = headers.get(ETA) or datetime.fromtimestamp(due_at, UTC).isoformat()
    args, kwargs = headers.get("argsrepr"), headers.get("kwargsrepr")
    task = state.app.tasks.get(headers["task"])
    if task is not None and not getattr(task, "sensitive", ()):
        args, kwargs, _ = message.payload
    info = message.delivery_info
    request = {
        "id": headers["id"],
        "name": headers.get("shadow") or headers["task"],
        "args": args,
        "kwargs": kwargs,
        "type": headers["task"],
        "hostname": state.hostname,
        "time_start": None,
        "acknowledged": False,
        "delivery_info": {
            "exchange": info.get("exchange"),
            "routing_key": info.get("routing_key"),
            "priority": properties.get("priority"),
            "redelivered": False,
        },
        "worker_pid": None,
    }
    return {"eta": eta, "priority": TIMER_PRIORITY, "request": request}
