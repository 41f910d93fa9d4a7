"""A request for a job that goes from the line to a thread without kombu's message in between."""

from __future__ import annotations

import json
import time
import typing as t
from contextvars import ContextVar

from celery.app.task import Context
from celery.worker import state as worker_state
from celery.worker.request import Request
from kombu.utils import json as kombu_json

from ..message import AT_ONCE, ETA, FENCE
from ..request import OffloadRequest
from ..stored import LISTED, USUAL

if t.TYPE_CHECKING:
    from ..._store import Delivery, Finished
    from ..engine import Engine
    from ..stored import Parts

__all__ = ["LightRequest", "Unfit", "current_light"]

#: What the embed of a message holds that is for nobody.
_NOTHING = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
#: The headers that every message has, and ours.
_KNOWN = frozenset({*USUAL, *LISTED, "id", "root_id", FENCE, AT_ONCE, ETA})
#: What Celery's own consumer must look at.
_UNFIT = ("id", "compression", "expires", "stamped_headers")


class Unfit(Exception):
    """A message that Celery's own consumer must look at."""


class LightRequest(OffloadRequest):
    """Celery's request, made from a message of the plainest form.

    What Celery shows and tells of a request (``inspect``, events, signals, logs, revokes) it shows
    and tells of this one.

    :param found: What its message says.
    :param consumer: Celery's.
    :raises Unfit: The message is not of that form.
    """

    def __init__(
        self, engine: Engine, delivery: Delivery, found: Parts, task: t.Any, consumer: t.Any
    ) -> None:
        extra, body = found.headers, found.body
        if extra and any(extra.get(name) for name in _UNFIT):
            raise Unfit
        if "delivery_tag" in found.properties or "delivery_info" in found.properties:
            raise Unfit
        # kombu's own decoder, where there is something for it to decode.
        loads = kombu_json.loads if '"__type__"' in body else json.loads
        args, kwargs, embed = loads(f"{body}, null]" if found.cut else body)
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise Unfit
        job_id, fence = delivery.job_id, delivery.fence
        self._offload, self.tag = engine, f"{fence}:{job_id}"
        self._app, self._task, self._hostname = consumer.app, task, consumer.hostname
        self._eventer = consumer.event_dispatcher
        self._message, self._utc, self._decoded = None, True, True
        self._body = self._Request__payload = (args, kwargs, embed or _NOTHING)
        self._content_type = self._content_encoding = None
        self._args, self._kwargs = args, kwargs
        self._argsrepr, self._kwargsrepr = found.argsrepr, found.kwargsrepr
        self.id, self._type, self.name = job_id, found.task, found.task
        self._root_id, self._parent_id = job_id, None
        self._ignore_result = False
        self._eta = self._expires = None
        self._connection_errors = ()
        again = fence > 1
        queue = delivery.queue
        self._delivery_info = {
            "exchange": "", "routing_key": queue, "priority": 0, "redelivered": again,
        }  # fmt: skip
        properties = {
            "correlation_id": job_id,
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": queue, "redelivered": again},
            "delivery_mode": 2,
            "priority": 0,
            "reply_to": found.reply_to,
            "delivery_tag": self.tag,
        }
        self._request_dict: dict[str, t.Any] = {
            **USUAL, **_NOTHING,
            "id": job_id, "root_id": job_id, "timelimit": [None, None], "stamps": {},
            "task": found.task, "origin": found.origin,
            "argsrepr": found.argsrepr, "kwargsrepr": found.kwargsrepr,
            "headers": None, "properties": properties, "delivery_info": self._delivery_info,
            "reply_to": found.reply_to, "correlation_id": job_id, "hostname": consumer.hostname,
            "args": args, "kwargs": kwargs, "is_eager": False, FENCE: fence,
        }  # fmt: skip
        if delivery.at_once:
            self._request_dict[AT_ONCE] = delivery.origin
        #: Whether there is nothing to do after it but to store what it returns.
        self.simple = not embed or not any(embed.values())
        if embed or extra or found.properties:
            self._is_unusual(found, embed)
        self.began = 0.0
        self.ended = False

    def _is_unusual(self, found: Parts, embed: dict[str, t.Any] | None) -> None:
        """Say what only some messages say."""
        extra, request = found.headers, self._request_dict
        request.update(extra)
        request.update(embed or ())
        if request["eta"]:
            # It is due by the server's clock. With its time, a worker would wait for its own.
            request[ETA], request["eta"] = request["eta"], None
        # What the sender added.
        request["headers"] = {name: extra[name] for name in extra.keys() - _KNOWN} or None
        properties = request["properties"]
        properties.update(found.properties)
        request["correlation_id"] = properties["correlation_id"]
        self._delivery_info["priority"] = properties["priority"]
        self.name = request["shadow"] or self._type
        self._root_id, self._parent_id = request["root_id"], request["parent_id"]
        ignore = request["ignore_result"]
        self._ignore_result = self._task.ignore_result if ignore is None else ignore
        if self._ignore_result or any(request["timelimit"] or ()):
            self.simple = False

    @property
    def context(self) -> Context:
        """The request as the task sees it.

        Celery copies all of it, and goes through all to find what the sender added, which is known.
        """
        context = Context.__new__(Context)
        self._request_dict["called_directly"] = False
        context.__dict__ = self._request_dict
        return context

    @property
    def tells(self) -> bool:
        """Whether there is somebody to tell events to. A worker that sends none of tasks has a
        dispatcher all the same."""
        eventer = self._eventer
        return (
            eventer is not None
            and eventer.enabled
            and (not eventer.groups or "task" in eventer.groups)
        )

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
        if self.tells:
            super().send_event(type, **fields)

    def on_success(self, outcome: tuple[int, t.Any, float], **more: t.Any) -> None:
        if outcome[0] or self.tells:
            super().on_success(outcome, **more)
            return
        # Not among those that Celery remembers as successful, for which there is no use here.
        worker_state.task_ready(self)
        if self.task.acks_late:
            self.acknowledge()

    def acknowledge(self) -> None:
        Request.acknowledge(self)

    @property
    def _engine(self) -> Engine:
        return self._offload

    # Methods, where Celery's requests keep functions: one of this very object would be a cycle,
    # which only the garbage collector could end.
    def _on_ack(self, *_: t.Any) -> None:
        if not self.ended:
            self._offload.ack(self.tag)

    def _on_reject(self, logger: t.Any, errors: t.Any, requeue: bool) -> None:
        if requeue:
            self._offload.release(self.tag)
        elif not self.ended:
            self._offload.ack(self.tag)


_current: ContextVar[LightRequest | None] = ContextVar("offload_light", default=None)


def current_light(task_id: str) -> LightRequest | None:
    """The request of this thread, if it is for that task."""
    light = _current.get()
    return light if light is not None and light.id == task_id else None
