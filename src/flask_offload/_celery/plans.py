"""What plain calls of a task have in common; see :mod:`template`."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from operator import attrgetter

from celery.app.amqp import AMQP
from celery.app.routes import MapRoute
from celery.app.task import Task
from celery.result import AsyncResult
from kombu.serialization import registry
from kombu.utils import json as kombu_json

from .._store import Accepted
from . import describe, publish
from .job import Job

if t.TYPE_CHECKING:
    from .app import OffloadCelery
    from .engine import Engine

__all__ = ["KNOWN", "Plan", "is_as_made", "kept", "placed", "plan_for", "plan_of"]

#: Options of a call that a plan may be made for.
KNOWN = frozenset("queue priority time_limit soft_time_limit ignore_result".split())
_TYPES: dict[str, t.Any] = {
    "queue": str, "priority": int, "time_limit": int | float, "soft_time_limit": int | float,
    "ignore_result": bool, "serializer": str,
}  # fmt: skip
#: Methods of Celery that the user may have put another in the place of.
_OF_TASK = ("shadow_name", "_get_exec_options", "AsyncResult", "add_trail")
#: Settings under which a call is not plain, unless they are as here.
_CONF = {
    "task_always_eager": False,
    "task_send_sent_event": False,
    "task_inherit_parent_priority": False,
    "task_protocol": 2,
    "task_serializer": "json",
    "task_compression": None,
}
#: What a plan depends on of a task.
_seen = attrgetter(
    "title", "sensitive", "default_queue", "default_priority", "ignore_result", "max_retries",
    "typing", "time_limit", "soft_time_limit",
)  # fmt: skip
#: Most plans of one task: who passes ever new options takes the long way.
LIMIT = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """
    :param check: Of the signature; ``None`` where the task does not want it.
    :param title: Empty if it depends on the arguments.
    :param sensitive: Whether some arguments must not be shown.
    :param headers, properties: Of the message, as far as they are not as usual.
    :param rare, fields: Of the record; see :class:`.Accepted`.
    :param overhead: How large the payload of a call without arguments is.
    """

    engine: Engine
    check: t.Callable[..., t.Any] | None
    name: str
    title: str
    sensitive: bool
    queue: str
    priority: int
    rare: str
    ignore_result: bool
    headers: dict[str, t.Any]
    properties: dict[str, t.Any]
    fields: tuple[str, ...]
    overhead: int


class _Plans:
    """The plans of one task, for as long as the task and the settings stay as they are."""

    __slots__ = ("app", "by_options", "changes", "seen")

    def __init__(self, app: t.Any, seen: tuple[t.Any, ...]) -> None:
        self.app = app
        self.seen = seen
        self.changes = dict(app.conf.changes)
        self.by_options: dict[tuple[t.Any, ...], Plan | None] = {}


def plan_for(app: OffloadCelery, task: t.Any, options: dict[str, t.Any]) -> Plan | None:
    """The plan of a call with these options (of :data:`KNOWN`), if it is plain."""
    return kept(app, task, options, _seen(task), _plan)


def kept(
    app: t.Any,
    task: t.Any,
    options: dict[str, t.Any],
    seen: tuple[t.Any, ...],
    make: t.Callable[[t.Any, t.Any, dict[str, t.Any]], Plan | None],
) -> Plan | None:
    """The plan of a call, made once for as long as what it depends on is the same.

    :param seen: What that is of the task.
    """
    plans: _Plans | None = task.__dict__.get("_offload_plans")
    if (
        plans is None
        or plans.app is not app
        or plans.seen != seen
        or plans.changes != app.conf.changes
    ):
        plans = task._offload_plans = _Plans(app, seen)
    key = tuple(options.items())
    try:
        return plans.by_options[key]
    except KeyError:
        if len(plans.by_options) >= LIMIT:
            return None
    except TypeError:
        return None  # a value that is not even hashable
    plan = plans.by_options[key] = make(app, task, dict(options))
    return plan


def _plan(app: OffloadCelery, task: t.Any, options: dict[str, t.Any]) -> Plan | None:
    if app.engine is None or not _is_ours(app, task):
        return None
    of_task = task._get_exec_options()
    for name in ("queue", "priority"):
        if options.get(name, of_task.get(name)) is None:
            options[name] = getattr(task, f"default_{name}")
    place = placed(app, task, options)
    return None if place is None else _filled(app, task, *place)


def placed(
    app: t.Any, task: t.Any, options: dict[str, t.Any]
) -> tuple[dict[str, t.Any], str] | None:
    """The options with those of the task, and the queue, where nothing is unusual about them."""
    if any(app.conf[name] != value for name, value in _CONF.items()):
        return None
    limits = task.time_limit, task.soft_time_limit
    if limits[0] and limits[1] and limits[1] > limits[0]:
        return None  # an error, which Celery raises
    options = {**task._get_exec_options(), **options}
    options.setdefault("ignore_result", task.ignore_result)
    options = {name: value for name, value in options.items() if value is not None}
    for name, value in options.items():
        # True is an int, and 1 is not True.
        right = isinstance(value, _TYPES.get(name, ())) and (
            isinstance(value, bool) == (name == "ignore_result")
        )
        if not right:
            return None
    if options.pop("serializer", "json") != "json":
        return None
    queue = _queue_of(app, task, options)
    return (options, queue) if queue else None


def _is_ours(app: OffloadCelery, task: t.Any) -> bool:
    """Whether all that has a part in a call is Celery's or ours."""
    from .app import OffloadCelery
    from .backend import OffloadBackend
    from .task import OffloadTask

    behind = super(OffloadTask, task).apply_async
    return (
        getattr(behind, "__func__", None) is Task.apply_async
        and is_as_made(app, task, OffloadTask.apply_async, OffloadCelery.send_task)
        and issubclass(app.AsyncResult, Job)
        and app.AsyncResult.__init__ is AsyncResult.__init__
        and type(app.backend).on_task_call is OffloadBackend.on_task_call
    )


def is_as_made(app: t.Any, task: t.Any, apply_async: t.Any, send_task: t.Any) -> bool:
    """Whether the user has put nothing in the place of what has a part in a call.

    :param apply_async, send_task: Of the class of the task, and of that of the app.
    """
    kind = type(task)
    json = registry._encoders.get("json")
    return (
        kind.apply_async is apply_async
        and all(getattr(kind, name) is getattr(Task, name) for name in _OF_TASK)
        and not any(name in vars(task) for name in (*_OF_TASK, "apply_async"))
        and not task.__v2_compat__
        and task._dump_pydantic_arguments is None
        and type(app).send_task is send_task
        and "send_task" not in vars(app)
        and type(app.amqp) is AMQP
        and "as_task_v2" not in vars(app.amqp)
        and all(isinstance(route, MapRoute) for route in app.amqp.router.routes)
        and json is not None
        and json.encoder is kombu_json.dumps
    )


def _queue_of(app: t.Any, task: t.Any, options: dict[str, t.Any]) -> str:
    try:
        route = app.amqp.router.route(dict(options), task.name, (), {}, task)
    except LookupError:
        return ""  # a queue that is not configured
    queue = route.get("queue")
    if {name: v for name, v in route.items() if name != "queue"} != {
        name: v for name, v in options.items() if name != "queue"
    }:
        return ""  # the route says more than where to
    return publish.line_of(app, {"queue": queue})


def _filled(app: OffloadCelery, task: t.Any, options: dict[str, t.Any], queue: str) -> Plan:
    # As publish has it: the payload tells the queue that was asked for.
    kept = {name: options[name] for name in publish.KEPT if name in options}
    payload = kombu_json.dumps({"args": [], "kwargs": {}, "options": kept})
    title = task.title or ""
    fixed = describe.title(task, task.name, describe.Shown()) if "{" not in title else ""
    fields = ["task", task.name]
    if task.max_retries is not None:
        fields += ["max_retries", str(task.max_retries)]
    return plan_of(
        t.cast("Engine", app.engine),
        task,
        options,
        queue,
        title="" if "}" in title else fixed,
        sensitive=bool(task.sensitive),
        fields=tuple(fields),
        overhead=len(payload) - 4,
    )


def plan_of(
    engine: Engine,
    task: t.Any,
    options: dict[str, t.Any],
    queue: str,
    *,
    title: str,
    fields: tuple[str, ...],
    sensitive: bool = False,
    overhead: int = 0,
) -> Plan:
    """The plan of calls of a task with these options; see :func:`placed`."""
    priority = int(options.get("priority") or 0)
    return Plan(
        engine=engine,
        check=getattr(task, "__header__", None) if task.typing else None,
        name=task.name,
        title=title,
        sensitive=sensitive,
        queue=queue,
        priority=priority,
        rare=Accepted.rarely(priority=priority),
        ignore_result=options["ignore_result"],
        headers=_headers_of(options),
        properties={"priority": priority} if priority else {},
        fields=fields,
        overhead=overhead,
    )


def _headers_of(options: dict[str, t.Any]) -> dict[str, t.Any]:
    """The headers that are not as usual."""
    limits = [options.get("time_limit"), options.get("soft_time_limit")]
    headers: dict[str, t.Any] = {} if limits == [None, None] else {"timelimit": limits}
    if options["ignore_result"]:
        headers["ignore_result"] = True
    return headers
