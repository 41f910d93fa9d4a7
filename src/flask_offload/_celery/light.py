"""A request for a job that goes from the line to a thread without kombu's message in between."""

from __future__ import annotations

import base64
import json
import time
import typing as t
from contextvars import ContextVar

from celery.worker.request import Request
from kombu.utils import json as kombu_json

from .._store import Finished
from .message import AT_ONCE, ETA, FENCE, Message
from .request import OffloadRequest
from .stored import LISTED, USUAL

if t.TYPE_CHECKING:
    from .engine import Engine

__all__ = ["LightRequest", "Unfit", "current_light"]

#: What the embed of a message holds that is for nobody.
_NOTHING = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
#: The headers that every message has, and ours.
_KNOWN = frozenset({*USUAL, *LISTED, "id", "root_id", FENCE, AT_ONCE, ETA})


class Unfit(Exception):
    """A message that Celery's own consumer must look at."""


class LightRequest(OffloadRequest):
    """Celery's request, made from a message of the plainest form.

    What Celery shows and tells of a request (``inspect``, events, signals, logs, revokes) it shows
    and tells of this one.

    :raises Unfit: The message is not of that form.
    """

    def __init__(
        self,
        engine: Engine,
        message: Message,
        app: t.Any,
        task: t.Any,
        hostname: str,
        eventer: t.Any,
    ) -> None:
        headers: dict[str, t.Any] = message["headers"]
        if message["content-type"] != "application/json" or headers.get("compression"):
            raise Unfit
        if headers.get("expires") or headers.get("stamped_headers") or headers.get("eta"):
            raise Unfit
        properties = message["properties"]
        body = message["body"]
        if properties.get("body_encoding") == "base64":
            body = base64.b64decode(body)
        else:
            body = body.encode()
        # kombu's own decoder, where there is something for it to decode.
        loads = kombu_json.loads if b"__type__" in body else json.loads
        payload = loads(body)
        if not isinstance(payload, list) or len(payload) != 3:
            raise Unfit
        self._offload, self.tag = engine, properties["delivery_tag"]
        self._app, self._task, self._hostname, self._eventer = app, task, hostname, eventer
        self._message, self._utc, self._decoded, self._body = None, True, True, payload
        self._Request__payload = payload
        self._content_type = self._content_encoding = None
        self._request_dict = headers
        self.id, self._type = headers["id"], headers["task"]
        self.name = headers.get("shadow") or self._type
        self._root_id, self._parent_id = headers.get("root_id"), headers.get("parent_id")
        self._argsrepr, self._kwargsrepr = (
            headers.get("argsrepr", ""),
            headers.get("kwargsrepr", ""),
        )
        ignore = headers.get("ignore_result")
        self._ignore_result = task.ignore_result if ignore is None else ignore
        self._eta = self._expires = None
        self._connection_errors = ()
        info = properties["delivery_info"]
        self._delivery_info = {
            "exchange": info.get("exchange"),
            "routing_key": info.get("routing_key"),
            "priority": properties.get("priority"),
            "redelivered": info.get("redelivered", False),
        }
        self._args, self._kwargs, embed = payload
        headers.update(
            _NOTHING,
            # What the sender added. Celery would find it by leaving out all that it knows.
            headers={name: headers[name] for name in headers.keys() - _KNOWN} or None,
            properties=properties,
            reply_to=properties.get("reply_to"),
            correlation_id=properties.get("correlation_id"),
            hostname=hostname,
            delivery_info=self._delivery_info,
            args=self._args,
            kwargs=self._kwargs,
            is_eager=False,
            **(embed or {}),
        )
        self._on_ack, self._on_reject = self._ack_line, self._reject_line
        self.began = 0.0
        self.ended = False

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        self.began = time_accepted
        super().on_accepted(pid, time_accepted)

    def end(self, end: Finished) -> None:
        """Tell the server what came of it, together with what came of others."""
        self.ended = True
        self._offload.commits.finish(end)

    @property
    def ran(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.began

    def send_event(self, type: str, **fields: t.Any) -> None:  # noqa: A002
        if self._eventer is not None and self._eventer.enabled:
            super().send_event(type, **fields)

    def acknowledge(self) -> None:
        Request.acknowledge(self)

    @property
    def _engine(self) -> Engine:
        return self._offload

    def _ack_line(self, *_: t.Any) -> None:
        if not self.ended:
            self._offload.ack(self.tag)

    def _reject_line(self, logger: t.Any, errors: t.Any, requeue: bool) -> None:
        if requeue:
            self._offload.release(self.tag)
        elif not self.ended:
            self._offload.ack(self.tag)


_current: ContextVar[LightRequest | None] = ContextVar("offload_light", default=None)


def current_light(task_id: str) -> LightRequest | None:
    """The request of this thread, if it is for that task."""
    light = _current.get()
    return light if light is not None and light.id == task_id else None
