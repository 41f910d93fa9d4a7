"""A request for a job that goes from the line to a thread without kombu's message in between."""

from __future__ import annotations

import threading
import time
import typing as t
from contextvars import ContextVar
from weakref import ref

from celery.app.task import Context
from celery.worker import request as celery_request
from celery.worker import state as worker_state
from celery.worker.request import Request

from ..message import AT_ONCE, ETA, FENCE
from ..request import OffloadRequest
from ..stored import LISTED, USUAL

if t.TYPE_CHECKING:
    from ..._store import Delivery, Finished
    from ..engine import Engine
    from ..stored import Opened

__all__ = ["LightRequest", "Unfit", "current_light"]

#: What the embed of a message holds that is for nobody.
_NOTHING = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
#: What the request of every job says, in its order; what is None differs.
_BLANK: dict[str, t.Any] = {
    **USUAL, **_NOTHING,
    **dict.fromkeys(
        "id root_id task origin argsrepr kwargsrepr headers properties delivery_info reply_to "
        "correlation_id hostname args kwargs".split()
    ),
    "is_eager": False, FENCE: None,
}  # fmt: skip
#: The headers that every message has, and ours.
_KNOWN = frozenset({*USUAL, *LISTED, "id", "root_id", FENCE, AT_ONCE, ETA})
#: What Celery's own consumer must look at.
_UNFIT = ("id", "compression", "expires", "stamped_headers")


_reserved: t.Any = worker_state.reserved_requests
_active: t.Any = worker_state.active_requests


#: As the engine's: a shutdown may interrupt who holds it.
_making = threading.RLock()


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

    # As they are in all of them; Celery's class keeps them with each request.
    _message = _content_type = _content_encoding = None
    _utc = _decoded = True
    _eta = _expires = _parent_id = None
    _ignore_result = False
    _connection_errors = ()
    began = 0.0
    #: What :attr:`request_dict` is, once it was wanted.
    _seen: dict[str, t.Any] | None = None
    #: Whether its end was told, or is about to be.
    ended = False
    #: Whether there is nothing to do after it but to store what it returns.
    simple = True

    def __init__(
        self, engine: Engine, delivery: Delivery, found: Opened, task: t.Any, consumer: t.Any
    ) -> None:
        (name, argsrepr, kwargsrepr, origin, reply_to, *more), args, kwargs, embed = found
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise Unfit
        job_id, fence, queue, _, at_once, sender = delivery
        self._offload, self.tag = engine, f"{fence}:{job_id}"
        self._app, self._task, self._hostname = consumer.app, task, consumer.hostname
        self._eventer = consumer.event_dispatcher
        self._body = self._Request__payload = (args, kwargs, embed or _NOTHING)
        self._args, self._kwargs = args, kwargs
        self._argsrepr, self._kwargsrepr = argsrepr, kwargsrepr
        self.id = self._root_id = job_id
        self._type = self.name = name
        #: What else :meth:`_made` needs.
        self._way = origin, reply_to, queue, fence, sender if at_once else None
        if embed or more:
            extra, others = more or ({}, {})
            self._is_unusual(extra, others, embed)

    @property
    def request_dict(self) -> dict[str, t.Any]:
        """What the task gets to see of its request.

        Made when it is wanted: it is most of what a request takes, and hundreds may wait.
        """
        seen = self._seen
        if seen is None:
            # Whoever comes at the same time gets the same.
            with _making:
                seen = self._seen
                if seen is None:
                    self._seen = seen = self._made()
        return seen

    #: As Celery's own methods call it.
    _request_dict = request_dict

    def _made(self) -> dict[str, t.Any]:
        origin, reply_to, queue, fence, sender = self._way
        job_id, again = self.id, fence > 1
        request = _BLANK.copy()
        request["id"] = request["root_id"] = request["correlation_id"] = job_id
        request["timelimit"], request["stamps"] = [None, None], {}
        request["task"], request["origin"] = self._type, origin
        request["argsrepr"], request["kwargsrepr"] = self._argsrepr, self._kwargsrepr
        request["args"], request["kwargs"] = self._args, self._kwargs
        request["reply_to"], request["hostname"] = reply_to, self._hostname
        request[FENCE] = fence
        request["delivery_info"] = {
            "exchange": "", "routing_key": queue, "priority": 0, "redelivered": again,
        }  # fmt: skip
        request["properties"] = {
            "correlation_id": job_id,
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": queue, "redelivered": again},
            "delivery_mode": 2,
            "priority": 0,
            "reply_to": reply_to,
            "delivery_tag": self.tag,
        }
        if sender is not None:
            request[AT_ONCE] = sender
        return request

    @property
    def _delivery_info(self) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", self.request_dict["delivery_info"])

    def _is_unusual(
        self, extra: dict[str, t.Any], others: dict[str, t.Any], embed: dict[str, t.Any] | None
    ) -> None:
        """Say what only some messages say.

        :param extra, others: Headers and properties.
        """
        if any(extra.get(name) for name in _UNFIT):
            raise Unfit
        if "delivery_tag" in others or "delivery_info" in others:
            raise Unfit
        self.simple = not embed or not any(embed.values())
        request = self._request_dict
        request.update(extra)
        request.update(embed or ())
        if request["eta"]:
            # It is due by the server's clock. With its time, a worker would wait for its own.
            request[ETA], request["eta"] = request["eta"], None
        # What the sender added.
        request["headers"] = {name: extra[name] for name in extra.keys() - _KNOWN} or None
        properties = request["properties"]
        properties.update(others)
        request["correlation_id"] = properties["correlation_id"]
        request["delivery_info"]["priority"] = properties["priority"]
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

    # -- what Celery knows of the jobs of this worker: the same, noted directly

    def on_reserved(self) -> None:
        """Note that it is here; see :func:`celery.worker.state.task_reserved`."""
        self._ref = ref(self)
        worker_state.requests[self.id] = self
        _reserved.data.add(self._ref)

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        self.began = time_accepted
        if self._terminate_on_ack is not None or celery_request._does_debug or self.tells:
            super().on_accepted(pid, time_accepted)
            return
        self.worker_pid = pid
        self.time_start = time.time() - (time.monotonic() - time_accepted)
        worker_state.requests[self.id] = self
        _active.data.add(self._ref)
        worker_state.total_count[self.name] += 1
        worker_state.all_total_count[0] += 1

    def on_ready(self) -> None:
        """Note that it is over, and not among those that Celery remembers as successful, for which
        there is no use here; see :func:`celery.worker.state.task_ready`."""
        worker_state.requests.pop(self.id, None)
        _active.data.discard(self._ref)
        _reserved.data.discard(self._ref)

    def revoked(self) -> bool:
        # What else Celery asks, its expiry and its stamps, is of messages that are unfit.
        if not self._already_revoked and self.id not in worker_state.revoked:
            return False
        return bool(super().revoked())

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
        self.on_ready()
        if self._task.acks_late:
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
