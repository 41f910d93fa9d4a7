"""The short way through a job: Celery's tracer without what a plain task does not need.

For tasks without handlers of their own, in jobs that are no part of a canvas, while nobody listens
to the signals of every run. The outcome is that of Celery's tracer; errors are told by the same
code of Celery (:class:`celery.app.trace.TraceInfo`).
"""

from __future__ import annotations

import logging
import time
import typing as t

from billiard.einfo import ExceptionInfo
from celery import signals
from celery._state import _task_stack
from celery.app import trace
from celery.app.task import Task
from celery.backends.base import Backend
from celery.canvas import maybe_signature
from celery.exceptions import Ignore, Reject, Retry
from celery.loaders.base import BaseLoader
from celery.states import FAILURE, IGNORED, REJECTED, RETRY

from ..backend import OffloadBackend
from ..message import ETA
from ..ownlines import shown
from ..plain import tell_eta
from ..task import OffloadTask
from ..tracing import Run

if t.TYPE_CHECKING:
    from celery.app.task import Context

    from .light import LightRequest

__all__ = ["Outcome", "run"]

#: Whether it failed; what it returned, as text, or how it failed; and the seconds that it took.
Outcome = tuple[int, t.Any, float]

#: What a task of the user's must not have.
_HANDLERS = ("before_start", "on_success", "after_return")
_SIGNALS = (signals.task_prerun, signals.task_postrun, signals.task_success)
#: What a class of the user's may do around each job.
_AROUND = (
    (Backend, "process_cleanup"), (BaseLoader, "on_task_init"), (BaseLoader, "on_process_cleanup"),
)  # fmt: skip


def run(light: LightRequest) -> Outcome:
    """Run a job, the short way where that is the same as the long one."""
    if light.simple:
        task = light.task
        # Of this very object: a copy of a task for one job may be another.
        known = vars(task).get("_offload_short")
        if known is None:
            known = task._offload_short = _is_plain(task)
        if known:
            for signal in _SIGNALS:
                found = signal.receivers
                # One of ours only looks at jobs that were due at a time.
                if found and (
                    len(found) > 1 or found[0][1] is not tell_eta or ETA in light.request_dict
                ):
                    break
            else:
                return _run(light, task)
    result, info, runtime, text = light.task.__trace__(
        light.id, light.args, light.kwargs, light.request_dict
    )
    return (1, result, runtime) if info else (0, text, runtime)


def _is_plain(task: t.Any) -> bool:
    """Whether Celery's tracer would do nothing else for a task than :func:`_run` does."""
    app = task.app
    ours = isinstance(task, OffloadTask)
    # A worker puts something of Celery's around the one of Celery's own class.
    if trace.task_has_custom(task, "__call__") not in (None, Task) and not ours:
        return False
    if any(trace.task_has_custom(task, name) for name in _HANDLERS):
        return False
    backend, conf = task.backend, app.conf
    if not isinstance(backend, OffloadBackend) or not backend.is_plain_json:
        return False
    for base, name in _AROUND:
        of = type(backend if base is Backend else app.loader)
        if getattr(of, name) is not getattr(base, name):
            return False
    return not (task.track_started or conf.worker_deduplicate_successful_tasks)


def _run(light: LightRequest, task: t.Any) -> Outcome:
    ours = isinstance(task, OffloadTask)
    opened = Run(task, light.args, light.kwargs, light.request_dict) if ours else None
    context = light.context
    if opened is not None:
        opened.open()
    # Left by hand: Celery's own pop drops the list of this thread with its last item, and the next
    # push looks for it in vain. (Its C version gives no list, and needs none.)
    tasks = _task_stack.push(task) or _task_stack
    requests = task.request_stack.push(context) or task.request_stack
    try:
        return _outcome(light, task, context, opened)
    except (MemoryError, Reject):
        raise
    except Exception as error:
        # Of what looks after the task.
        trace._signal_internal_error(
            task, light.id, light.args, light.kwargs, light.request_dict, error
        )
        result = trace.report_internal_error(task, error)
        trace.TraceInfo(FAILURE, error).handle_error_state(task, context)
        return 1, result, 0.0
    finally:
        tasks.pop()
        requests.pop()
        if opened is not None:
            opened.close()


def _outcome(light: LightRequest, task: t.Any, context: Context, opened: Run | None) -> Outcome:
    began = time.monotonic()
    info: t.Any = None
    result: t.Any = None
    value: t.Any = None
    try:
        # Celery, too, calls a task of its own class by its body, unless there is something around.
        bare = opened is None and Task.__call__.__module__ == Task.__module__
        value = (task.run if bare else task)(*light.args, **light.kwargs)
        if context.callbacks or context.chain:
            _go_on(task, context, value)
        task.backend.succeeded(light, opened, value, context)
    except Reject as error:
        info, result = trace.TraceInfo(REJECTED, error), ExceptionInfo(internal=True)
        info.handle_reject(task, context)
    except Ignore as error:
        info, result = trace.TraceInfo(IGNORED, error), ExceptionInfo(internal=True)
        info.handle_ignore(task, context)
    except Retry as error:
        info = trace.TraceInfo(RETRY, error)
        result = info.handle_error_state(task, context, call_errbacks=False)
    except Exception as error:
        info = trace.TraceInfo(FAILURE, error)
        result = info.handle_error_state(task, context)
    if info is not None:
        trace.traceback_clear(info.retval)
        if opened is not None:
            opened.settle(info.state, info.retval)
        return 1, result, 0.0
    took = time.monotonic() - began
    told = trace.logger.isEnabledFor(logging.INFO)
    text = shown(value, task.resultrepr_maxsize) if told or light.tells else ""
    if told:
        trace.info(
            trace.LOG_SUCCESS,
            {
                "id": light.id,
                "name": light.name,
                "return_value": text,
                "runtime": took,
                "args": light.argsrepr or repr(light.args),
                "kwargs": light.kwargsrepr or repr(light.kwargs),
            },
        )
    return 0, text, took


def _go_on(task: Task, context: Context, value: t.Any) -> None:
    """Enqueue what the task itself has put after it while it ran."""
    more = {"parent_id": context.id, "root_id": context.root_id or context.id}
    for signature in context.callbacks or ():
        maybe_signature(signature, app=task.app).apply_async((value,), **more)
    if context.chain:
        signature = maybe_signature(context.chain[-1], app=task.app)
        signature.apply_async((value,), chain=context.chain[:-1], **more)
