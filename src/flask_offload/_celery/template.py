"""The short way of a plain call of a task into the line.

What does not change from call to call is worked out once. A call is plain when nothing would take
part in it but Celery's and our own code as it is: no link, chord or stamps, nobody who listens to
the publish signals, no router or method of the user's. Any other takes the long way, by Celery and
:mod:`publish`, and both give the same message and the same record.
"""

from __future__ import annotations

import os
import typing as t

from celery import signals
from celery.app.amqp import add_seconds_to_datetime
from celery.utils.nodenames import anon_nodename
from celery.utils.time import maybe_make_aware
from kombu.utils.json import JSONEncoder
from kombu.utils.uuid import uuid

from .._current import running_job
from .._jobs import JobState
from .._store import Accepted, StoreUnavailable
from . import describe, publish
from .plans import KNOWN, Plan, plan_for
from .stored import line

if t.TYPE_CHECKING:
    from .app import OffloadCelery

__all__ = ["enqueue"]

#: As kombu encodes a body.
_encode = JSONEncoder().encode
#: What is shown as it is sent.
_SCALARS = frozenset({int, float, bool, type(None)})
#: Less than where Celery begins to shorten.
_REPR_LIMIT = 800
_SIGNALS = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)
#: Seconds; what is further away is for Celery to judge.
_FAR = 10.0**8


def enqueue(task: t.Any, args: t.Any, kwargs: t.Any, options: dict[str, t.Any]) -> t.Any | None:
    """The job of a plain call; ``None``, and nothing done, where it is none.

    :raises EnqueueError: It was not accepted.
    """
    for signal in _SIGNALS:
        if signal.receivers:
            return None
    args, kwargs = args or (), kwargs or {}
    if type(args) not in (tuple, list) or type(kwargs) is not dict:
        return None
    task_id, countdown, unique = "", 0.0, ""
    if options:
        options = dict(options)
        task_id, countdown = options.pop("task_id", None) or "", options.pop("countdown", None) or 0
        unique = options.pop("unique", None) or ""
        plain = (
            options.keys() <= KNOWN
            and type(task_id) is type(unique) is str
            and type(countdown) in (int, float)
            and 0 <= countdown < _FAR
        )
        if not plain:
            return None
    app: OffloadCelery = task._get_app()
    plan = plan_for(app, task, options)
    if plan is None:
        return None
    if plan.check is not None:
        plan.check(*args, **kwargs)
    return _enqueue(app, task, plan, list(args), kwargs, task_id, countdown, unique)


def _enqueue(
    app: OffloadCelery,
    task: t.Any,
    plan: Plan,
    args: list[t.Any],
    kwargs: dict[str, t.Any],
    task_id: str,
    countdown: float,
    unique: str,
) -> t.Any | None:
    deadline = app.deadline()
    try:
        sent_args, sent_kwargs = _encode(args), _encode(kwargs) if kwargs else "{}"
    except (TypeError, ValueError, RecursionError):
        return None  # the long way knows what to say about it
    if len(sent_args) + len(sent_kwargs) + plan.overhead > app.settings.max_payload:
        return None
    job_id = task_id or uuid()

    # How it is shown.
    shown_args, shown_kwargs, title = sent_args, sent_kwargs, plan.title
    argsrepr = _repr_of(args, kwargs, plan)
    if argsrepr is None:
        shown = describe.arguments(task, args, kwargs)
        shown_args, shown_kwargs = shown.args, shown.kwargs
        title = title or describe.title(task, plan.name, shown)
        argsrepr = publish.reprs(app, args, kwargs, shown)

    # From where it comes.
    running, parent = running_job(), app.current_worker_task
    origin = publish.origin_of(app, running)
    headers, properties, state = plan.headers, plan.properties, JobState.QUEUED.value
    if parent:
        root_id = parent.request.root_id or parent.request.id
        headers = {**headers, "root_id": root_id, "parent_id": parent.request.id}
    if countdown:
        state = JobState.SCHEDULED.value
        headers = {**headers, "eta": _eta(app, countdown)}

    values = [plan.name, *argsrepr, _node(os.getpid()), app.thread_oid]
    envelope = line(values, headers, properties, f"[{sent_args}, {sent_kwargs}")
    more = [*plan.fields, "title", title]
    if shown_args != "[]":
        more += ("args", shown_args)
    if shown_kwargs != "{}":
        more += ("kwargs", shown_kwargs)
    if origin.locale:
        more += ("locale", origin.locale)
    if origin.request_id:
        more += ("request_id", origin.request_id)
    if running is not None:
        if running.job.root_id:
            more += ("root_id", running.job.root_id)
        more += ("parent_id", running.id)
    owners = _encode(origin.owners) if origin.owners else ""
    place = (envelope, plan.queue, plan.priority, owners, unique, len(more))
    accepted = Accepted(job_id, (0, 0, state, countdown, 0, *place, *more))
    try:
        outcome = plan.engine.put(accepted, deadline)
    except StoreUnavailable as error:
        raise publish.not_accepted(error) from error
    result = app.AsyncResult.accepted(job_id, app, task.backend, ignored=plan.ignore_result)
    if parent:
        parent.add_trail(result)
    existing = publish.existing(app, outcome)
    return result if existing is None else existing


def _repr_of(args: list[t.Any], kwargs: dict[str, t.Any], plan: Plan) -> tuple[str, str] | None:
    """Celery's ``argsrepr`` and ``kwargsrepr`` of short and simple arguments that all may see."""
    if not plan.title or plan.sensitive:
        return None
    texts = []
    for value in (*args, *kwargs, *kwargs.values()):
        if type(value) in _SCALARS:
            texts.append(str(value))
        elif type(value) is str and len(value) <= describe.TEXT_LIMIT and value.isascii():
            escaped = value.replace("'", "\\'")
            texts.append(f"'{escaped}'")
        else:
            return None
    count = len(args)
    argsrepr = f"[{', '.join(texts[:count])}]" if args else "()"
    if not kwargs:
        return (argsrepr, "{}") if len(argsrepr) < _REPR_LIMIT else None
    names, values = texts[count : count + len(kwargs)], texts[count + len(kwargs) :]
    pairs = [f"{name}: {value}" for name, value in zip(names, values, strict=True)]
    kwargsrepr = f"{{{', '.join(pairs)}}}"
    return (argsrepr, kwargsrepr) if len(argsrepr) + len(kwargsrepr) < _REPR_LIMIT else None


def _eta(app: OffloadCelery, countdown: float) -> str:
    eta = maybe_make_aware(add_seconds_to_datetime(app.now(), countdown), tz=app.timezone)
    return str(eta.isoformat())


_nodes: dict[int, str] = {}


def _node(pid: int) -> str:
    """The name of this process, which a forked child has another of."""
    try:
        return _nodes[pid]
    except KeyError:
        _nodes.clear()
        return _nodes.setdefault(pid, anon_nodename())
