"""Task messages, as kombu's virtual transports have them: headers, properties and body."""

from __future__ import annotations

import base64
import json
import typing as t
from datetime import UTC, datetime

from celery.utils.saferepr import saferepr
from kombu.compression import decompress
from kombu.serialization import loads

from .._store import Delivery, NewJob
from .stored import unpack

__all__ = ["AT_ONCE", "ETA", "FENCE", "Message", "delivered", "is_task", "job_of", "tag"]

Message = dict[str, t.Any]

#: The header in which a delivery carries its fence to the process that runs it.
FENCE = "offload_fence"
#: The header of a job that may start without asking: what travels on to the jobs it enqueues.
AT_ONCE = "offload_at_once"
#: The header that tells the task when it was due; see plain.py.
ETA = "offload_eta"
#: What a message of protocol 1 says in its body, and one of protocol 2 does too.
_IN_BODY = frozenset("args kwargs callbacks errbacks chord".split())


def tag(delivery: Delivery) -> str:
    """The delivery tag of kombu, which names job and fence."""
    return f"{delivery.fence}:{delivery.job_id}"


def delivered(delivery: Delivery) -> Message:
    """The message that was handed out, as the worker is to see it.

    :raises ValueError, TypeError, KeyError, AttributeError, RecursionError: It is none.
    """
    message = unpack(delivery.envelope, delivery.job_id, delivery.queue)
    headers, properties = message["headers"], message["properties"]
    if headers["id"] != delivery.job_id:
        raise ValueError(f"it is of another job, {headers['id']!r}")
    headers[FENCE] = delivery.fence
    # It is due by the server's clock. With its time, a worker would wait for its own.
    if headers.get("eta"):
        headers[ETA] = headers["eta"]
    headers["eta"] = None
    properties["delivery_tag"] = tag(delivery)
    properties["delivery_info"]["redelivered"] = delivery.fence > 1
    str(headers["task"]), message["body"]
    return message


def is_task(message: Message) -> bool:
    """Whether a message asks for a task.

    One of Celery's protocol 1 names its task in the body. It gets the headers of protocol 2, which
    is a form that every worker knows how to read.
    """
    headers = message.get("headers") or {}
    if headers.get("task") and headers.get("id"):
        return True
    try:
        body: t.Any = message["body"]
        properties = message["properties"]
        if properties.get("body_encoding") == "base64":
            body = base64.b64decode(body)
        if compression := headers.get("compression"):
            body = decompress(body, compression)
        # Not of pickle, unless the program has enabled it.
        body = loads(body, message["content-type"], message["content-encoding"])
        if not body["task"] or not body["id"]:
            return False
        known = {key: value for key, value in body.items() if key not in _IN_BODY}
        known["argsrepr"], known["kwargsrepr"] = saferepr(body["args"]), saferepr(body["kwargs"])
    except Exception:
        return False  # What cannot be read names no task.
    message["headers"] = {**known, **headers}
    return True


def job_of(message: Message) -> NewJob:
    """The record of a message that came without one."""
    headers = message["headers"]
    name = str(headers["task"])
    words = name.rpartition(".")[2].replace("_", " ").strip()
    eta = headers.get("eta")
    delay = 0.0
    if eta:
        due = datetime.fromisoformat(str(eta))
        due = due if due.tzinfo else due.replace(tzinfo=UTC)
        delay = max(0.0, (due - datetime.now(UTC)).total_seconds())
    return NewJob(
        id=str(headers["id"]),
        task=name,
        title=words[:1].upper() + words[1:],
        args=json.dumps([headers.get("argsrepr") or ""]),
        retries=int(headers.get("retries") or 0),
        nesting=int(headers.get("replaced_task_nesting") or 0),
        priority=int(message.get("properties", {}).get("priority") or 0),
        delay=delay,
        root_id=headers.get("root_id") or "",
        parent_id=headers.get("parent_id") or "",
    )
