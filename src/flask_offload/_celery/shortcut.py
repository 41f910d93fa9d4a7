"""The short way into the line for apps that know us by their settings only.

The first message of such an app goes by Celery and kombu. From then on a call that is plain, as
:mod:`template` has it, is written down directly, and any other goes on as before: both give the
same message and the same record.
"""

from __future__ import annotations

import typing as t

from celery import Celery
from celery.app.task import Task

from .._store import Accepted, Deadline, StoreUnavailable
from . import describe, publish
from .plain import PlainEngine
from .plans import Plan, is_as_made, kept, placed, plan_of
from .stored import line, quoted
from .template import encoded, headers_of, new_id, node, parent_of, reprs, simple

__all__ = ["offer"]


def offer(app: Celery) -> None:
    """Have the tasks of an app take the short way, unless their base class has one of its own."""
    base: t.Any = app.Task  # a class that Celery made for this app alone
    if base.apply_async is Task.apply_async:
        base.apply_async = _apply_async


def _apply_async(
    task: t.Any, args: t.Any = None, kwargs: t.Any = None, *more: t.Any, **options: t.Any
) -> t.Any:
    """Enqueue the task; see :meth:`celery.app.task.Task.apply_async`."""
    result = None if more else _enqueue(task, args, kwargs, options)
    return Task.apply_async(task, args, kwargs, *more, **options) if result is None else result


def _enqueue(task: t.Any, args: t.Any, kwargs: t.Any, options: dict[str, t.Any]) -> t.Any | None:
    call = simple(args, kwargs, options)
    # An id that somebody has chosen may be one that is used again, which takes more than this.
    if call is None or call.task_id or call.unique:
        return None
    app = task._get_app()
    seen = task.ignore_result, task.typing, task.time_limit, task.soft_time_limit
    plan = kept(app, task, call.options, seen, _plan)
    if plan is None:
        return None
    if plan.check is not None:
        plan.check(*call.args, **call.kwargs)
    sent = encoded(call.args, call.kwargs)
    if sent is None:
        return None
    shown = reprs(call.args, call.kwargs)
    if shown is None:
        shown = publish.reprs(app, call.args, call.kwargs, describe.Shown())
    job_id, parent = new_id(), parent_of(app)
    headers, state = headers_of(app, plan, parent, call.countdown)
    rare = plan.rare
    fields = [*plan.fields, "args", f"[{quoted(shown[0])}]", "root_id"]
    if parent:
        fields += (headers["root_id"], "parent_id", headers["parent_id"])
    else:
        fields.append(job_id)
    if call.countdown:
        rare = Accepted.rarely(delay=call.countdown, priority=plan.priority)
    values = [plan.name, *shown, node(), app.thread_oid]
    envelope = line(values, headers, plan.properties, f"[{sent[0]}, {sent[1]}")
    accepted = Accepted(job_id, rare, state, envelope, plan.queue, "", fields)
    try:
        plan.engine.put(accepted, Deadline.after(plan.engine.settings.publish_timeout))
    except StoreUnavailable:
        # Celery tries again, and has its own words for what becomes of it. If it was accepted all
        # the same, the same id adds nothing.
        return Task.apply_async(task, args, kwargs, **{**options, "task_id": job_id})
    result = task.AsyncResult(job_id)
    result.ignored = plan.ignore_result
    if parent:
        parent.add_trail(result)
    return result


def _plan(app: t.Any, task: t.Any, options: dict[str, t.Any]) -> Plan | None:
    engine = _engine(app)
    if engine is None or not is_as_made(app, task, _apply_async, Celery.send_task):
        return None
    place = placed(app, task, options)
    if place is None:
        return None
    title = describe.title(None, task.name, describe.Shown())
    fields = ("task", task.name, "title", title)
    return plan_of(engine, task, *place, title=title, fields=fields)


def _engine(app: t.Any) -> PlainEngine | None:
    """The line that the app's messages go to, if all of them go to one."""
    connection = app.producer_pool.connections.connection
    if len(connection.alt or ()) > 1:
        return None
    connection.transport  # tells its engine, without a connection  # noqa: B018
    engine = connection.transport_options.get("engine")
    return engine if isinstance(engine, PlainEngine) else None
