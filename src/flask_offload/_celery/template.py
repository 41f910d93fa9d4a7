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
from celery._state import _task_stack
from celery.app.amqp import add_seconds_to_datetime
from celery.utils.nodenames import anon_nodename
from celery.utils.time import maybe_make_aware
from kombu.utils.json import JSONEncoder

from .._current import running_job
from .._jobs import JobState
from .._store import Accepted, StoreUnavailable
from . import describe, publish
from .plans import KNOWN, Plan, plan_for
from .stored import line

if t.TYPE_CHECKING:
    from .app import OffloadCelery

__all__ = ["encoded", "enqueue", "headers_of", "new_id", "node", "parent_of", "reprs", "simple"]

#: The digit of a random UUID that tells its layout, of a random digit.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_QUEUED, _SCHEDULED = JobState.QUEUED.value, JobState.SCHEDULED.value
#: As kombu encodes a body.
_encode = JSONEncoder().encode
#: What is shown as it is sent.
_SCALARS = frozenset({int, float, bool, type(None)})
#: Less than where Celery begins to shorten.
_REPR_LIMIT = 800
#: Celery's stacks of running tasks, by thread; to ask for that of this thread takes it long.
_stacks: t.Any = getattr(getattr(_task_stack, "_local", None), "__storage__", True)
_SIGNALS = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)
#: Seconds; what is further away is for Celery to judge.
_FAR = 10.0**8


class Call(t.NamedTuple):
    """What a call of a task asks for.

    :param options: Those that a plan is made for.
    """

    args: t.Any
    kwargs: dict[str, t.Any]
    options: dict[str, t.Any]
    task_id: str
    countdown: float
    unique: str


def simple(args: t.Any, kwargs: t.Any, options: dict[str, t.Any]) -> Call | None:
    """The call, if nobody listens to it and it has no options but the usual ones."""
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
    return Call(args, kwargs, options, task_id, countdown, unique)


def enqueue(task: t.Any, args: t.Any, kwargs: t.Any, options: dict[str, t.Any]) -> t.Any | None:
    """The job of a plain call; ``None``, and nothing done, where it is none.

    :raises EnqueueError: It was not accepted.
    """
    call = simple(args, kwargs, options)
    if call is None:
        return None
    app: OffloadCelery = task._get_app()
    plan = plan_for(app, task, call.options)
    if plan is None:
        return None
    if plan.check is not None:
        plan.check(*call.args, **call.kwargs)
    return _enqueue(app, task, plan, call)


def _enqueue(app: OffloadCelery, task: t.Any, plan: Plan, call: Call) -> t.Any | None:
    args, kwargs, _, task_id, countdown, unique = call
    args = list(args)
    deadline = app.deadline()
    sent = encoded(args, kwargs)
    if sent is None:
        return None
    sent_args, sent_kwargs = sent
    if len(sent_args) + len(sent_kwargs) + plan.overhead > app.settings.max_payload:
        return None
    job_id = task_id or new_id()

    # How it is shown.
    shown_args, shown_kwargs, title = sent_args, sent_kwargs, plan.title
    argsrepr = reprs(args, kwargs) if plan.title and not plan.sensitive else None
    if argsrepr is None:
        shown = describe.arguments(task, args, kwargs)
        shown_args, shown_kwargs = shown.args, shown.kwargs
        title = title or describe.title(task, plan.name, shown)
        argsrepr = publish.reprs(app, args, kwargs, shown)

    # From where it comes.
    running = running_job()
    parent = parent_of(app)
    origin = publish.origin_of(app, running)
    headers, state = headers_of(app, plan, parent, countdown)

    values = [plan.name, *argsrepr, node(), app.thread_oid]
    envelope = line(values, headers, plan.properties, f"[{sent_args}, {sent_kwargs}")
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
    rare = plan.rare
    if countdown or unique:
        rare = Accepted.rarely(delay=countdown, priority=plan.priority, unique=unique)
    accepted = Accepted(job_id, rare, state, envelope, plan.queue, owners, more)
    try:
        outcome = plan.engine.put(accepted, deadline)
    except StoreUnavailable as error:
        raise publish.not_accepted(error) from error
    result = app.AsyncResult.accepted(job_id, app, task.backend, ignored=plan.ignore_result)
    if parent:
        parent.add_trail(result)
    existing = None if outcome[0] == "created" else publish.existing(app, outcome)
    return result if existing is None else existing


def encoded(args: t.Any, kwargs: dict[str, t.Any]) -> tuple[str, str] | None:
    """Arguments as JSON; ``None`` where the long way knows what to say about them."""
    try:
        return _encode(args) if args else "[]", _encode(kwargs) if kwargs else "{}"
    except (TypeError, ValueError, RecursionError):
        return None


def parent_of(app: t.Any) -> t.Any:
    """The task that makes the call, if it runs in a worker."""
    return app.current_worker_task if _stacks and _task_stack.stack else None


def reprs(args: t.Any, kwargs: dict[str, t.Any]) -> tuple[str, str] | None:
    """Celery's ``argsrepr`` and ``kwargsrepr`` of short and simple arguments that all may see."""
    if not args and not kwargs:
        return "()", "{}"
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
    if count and type(args) is tuple:
        argsrepr = f"({texts[0]},)" if count == 1 else f"({argsrepr[1:-1]})"
    if not kwargs:
        return (argsrepr, "{}") if len(argsrepr) < _REPR_LIMIT else None
    names, values = texts[count : count + len(kwargs)], texts[count + len(kwargs) :]
    pairs = [f"{name}: {value}" for name, value in zip(names, values, strict=True)]
    kwargsrepr = f"{{{', '.join(pairs)}}}"
    return (argsrepr, kwargsrepr) if len(argsrepr) + len(kwargsrepr) < _REPR_LIMIT else None


def new_id() -> str:
    """A random UUID, as :func:`uuid.uuid4` makes it, in half the time."""
    text = os.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:]}"


def headers_of(
    app: t.Any, plan: Plan, parent: t.Any, countdown: float
) -> tuple[dict[str, t.Any], str]:
    """The headers of a call that are not as usual, and the state that its job begins in.

    :param parent: The task that makes the call, if one does.
    """
    headers, state = plan.headers, _QUEUED
    if parent:
        root_id = parent.request.root_id or parent.request.id
        headers = {**headers, "root_id": root_id, "parent_id": parent.request.id}
    if countdown:
        state = _SCHEDULED
        headers = {**headers, "eta": _eta(app, countdown)}
    return headers, state


def _eta(app: t.Any, countdown: float) -> str:
    """When that is over, as Celery writes it."""
    due = maybe_make_aware(add_seconds_to_datetime(app.now(), countdown), tz=app.timezone)
    return str(due.isoformat())


_nodes: dict[int, str] = {}


def node() -> str:
    """The name of this process, which a forked child has another of."""
    pid = os.getpid()
    try:
        return _nodes[pid]
    except KeyError:
        _nodes.clear()
        return _nodes.setdefault(pid, anon_nodename())
