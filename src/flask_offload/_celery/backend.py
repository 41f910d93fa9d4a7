"""Celery's Redis backend, whose every write moves the record along in the same step."""

from __future__ import annotations

import time
import typing as t
from datetime import UTC, datetime
from functools import cached_property

from celery import states
from kombu.exceptions import EncodeError
from kombu.utils.encoding import str_to_bytes

from .._current import running_job
from .._jobs import JobState
from .._store import Finished, StoreUnavailable
from ..exceptions import ResultTooLarge, UserError
from . import shortcut
from .engine import refused
from .lane.light import current_light
from .plain import store_of
from .sentinel import StoreConnections
from .stored import quoted
from .tracing import DeliveriesExhausted, attempt, current_run, fence

if t.TYPE_CHECKING:
    from .lane.light import LightRequest
    from .tracing import Run

__all__ = ["OffloadBackend"]

_STATES = {
    states.SUCCESS: JobState.SUCCEEDED,
    states.FAILURE: JobState.FAILED,
    states.REVOKED: JobState.CANCELLED,
    states.RETRY: JobState.RETRYING,
}
_FINAL = {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.DEAD}
ERROR_LIMIT = 1_000


class OffloadBackend(StoreConnections):
    """Chords, groups and waiting are Celery's; results are written by the store."""

    store: t.Any
    settings: t.Any

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        app = kwargs["app"]
        self.store, self.settings = getattr(app, "store", None), getattr(app, "settings", None)
        #: A Celery app that knows us by its settings only.
        self._plain = self.store is None
        self._offered = False
        if self._plain:
            self.store, self.settings = store_of(kwargs["url"], app.conf)
        keys = self.store.keys
        self.task_keyprefix = keys.result("")
        self.group_keyprefix = f"{keys.prefix}group:"
        self.chord_keyprefix = f"{keys.prefix}chord:"
        super().__init__(*args, **kwargs)

    def on_task_call(self, producer: t.Any, task_id: str) -> None:
        """Subscribe to nothing: :meth:`get` does, once somebody waits."""
        if self._plain and not self._offered:
            # An app that sends tasks, and not just takes them.
            self._offered = True
            shortcut.offer(self.app)

    def _add_pending_result(self, task_id: str, result: t.Any, weak: bool = False) -> None:
        # Before anything is kept that the end of the result must remove.
        result.awaited = True
        super()._add_pending_result(task_id, result, weak=weak)

    def store_result(
        self, task_id: str, result: t.Any, state: str, traceback: t.Any = None,
        request: t.Any = None, **kwargs: t.Any,
    ) -> t.Any:  # fmt: skip
        if state == states.SUCCESS:
            self._checked(result)
        job = running_job()
        if traceback and job is not None:
            traceback = job.mask(str(traceback))
        return super().store_result(
            task_id, result, state, traceback, request=request, outcome=_outcome(result), **kwargs
        )

    def _checked(self, result: t.Any) -> t.Any:
        """A result, encoded. EncodeError is what Celery's tracer turns into a failed task."""
        try:
            # A result that stands for others is kept as their ids. Compressed it is bytes.
            encoded = self.encode(self.prepare_value(result))
        except (TypeError, ValueError, EncodeError) as error:
            raise EncodeError(
                f"The result is not JSON: {error}. Return plain data, or attach a file."
            ) from error
        limit = self.settings.max_result
        # A text that is short enough with four bytes for each of its signs needs no count.
        if len(encoded) * 4 > limit and (size := len(str_to_bytes(encoded))) > limit:
            too_large = ResultTooLarge(
                f"The result has {size:,} bytes. OFFLOAD_MAX_RESULT allows {limit:,}. "
                "Attach it as a file instead."
            )
            raise EncodeError(str(too_large)) from too_large
        return encoded

    def _success(self, task_id: str, result: t.Any, request: t.Any) -> str:
        """What Celery would store of a success, written down directly."""
        children = self.current_task_children(request)
        group, parent = request.group, request.parent_id
        return "".join(
            (
                '{"status": "SUCCESS", "result": ',
                "null" if result is None else self._checked(result),
                ', "traceback": null, "children": ',
                self.encode(children) if children else "[]",
                f', "date_done": "{_now()}"',
                f', "group_id": {self.encode(group)}' if group else "",
                f', "parent_id": {self.encode(parent)}' if parent else "",
                f', "task_id": {quoted(task_id)}}}',
            )
        )

    @cached_property
    def is_plain_json(self) -> bool:
        """Whether results are stored in Celery's usual form."""
        conf = self.app.conf
        extended = conf.find_value_for_key("extended", "result")
        return self.serializer == "json" and conf.enable_utc and not (self.compression or extended)

    def _store_result(
        self, task_id: str, result: t.Any, state: str, traceback: t.Any = None,
        request: t.Any = None, outcome: tuple[str, dict[str, str]] = ("", {}), **kwargs: t.Any,
    ) -> t.Any:  # fmt: skip
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        final, fields = outcome
        record_state = final or _STATES.get(state, "")
        if getattr(request, "chord", None) and record_state in _FINAL:
            # The chord counts its part before the part is over: a worker that dies in between
            # leaves a job that runs again, not a chord that waits for ever.
            record_state, fields = "", {}
        encoded = self.encode({**meta, "task_id": task_id})
        self._finish(task_id, record_state, encoded, fields, request)
        return result

    def _finish(
        self, task_id: str, state: str, result: str, fields: dict[str, str], request: t.Any
    ) -> None:
        run = current_run(task_id)
        light = current_light(task_id)
        ran = light.ran if run is None and light is not None else getattr(run, "ran", None)
        if run is not None and state in _FINAL:
            run.ended = True
        end = Finished(task_id, state, result, fields, attempt(request), fence(request), ran)
        if light is not None and state in _FINAL and not light.request_dict.get("errbacks"):
            # An errback may look for the result as soon as it is called.
            light.end(end)
        elif self.store.finish_all([end])[0] < 0:
            refused(task_id)

    def succeeded(
        self, light: LightRequest, run: Run | None, result: t.Any, request: t.Any
    ) -> None:
        """What :meth:`mark_as_done` does for a job whose request and run are at hand.

        :raises EncodeError: The result is not JSON, or too large.
        """
        text = self._success(light.id, result, request)
        ran = light.ran if run is None else run.ran
        if run is not None:
            run.ended = True
        which = attempt(light.request_dict), fence(light.request_dict)
        light.end(Finished(light.id, JobState.SUCCEEDED, text, {}, *which, ran))

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        if isinstance(exc, StoreUnavailable):
            return not exc.for_good
        return bool(super().exception_safe_to_retry(exc))

    def on_chord_part_return(
        self, request: t.Any, state: str, result: t.Any, propagate: t.Any = None, **kwargs: t.Any
    ) -> None:
        super().on_chord_part_return(request, state, result, propagate, **kwargs)
        if not request.group or not _redelivered(request):
            return
        # The worker before may have died after it had claimed the callback and before that was
        # out. Who runs the part again must not finish it while the claim of the dead one stands,
        # because nobody would look again.
        claim_key = self.get_key_for_group(request.group, ".c")
        size_key = self.get_key_for_group(request.group, ".s")
        while True:
            with self.client.pipeline() as pipe:
                claim, waits = pipe.get(claim_key).exists(size_key).execute()
            if not waits or claim in (b"done", "done"):
                return
            if claim is None:
                super().on_chord_part_return(request, state, result, propagate, **kwargs)
                return
            time.sleep(0.2)

    # -- tasks that keep no result have a record all the same

    def mark_as_done(
        self, task_id: str, result: t.Any, request: t.Any = None, store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:  # fmt: skip
        light = current_light(task_id)
        if light is not None and store_result and self.is_plain_json and not request.chord:
            text = self._success(task_id, result, request)
            self._finish(task_id, JobState.SUCCEEDED, text, {}, request)
            return
        super().mark_as_done(task_id, result, request, store_result, state)
        if not store_result or getattr(request, "chord", None):
            self._finish_without_result(task_id, JobState.SUCCEEDED, {}, request)

    def mark_as_failure(
        self, task_id: str, exc: t.Any, traceback: t.Any = None, request: t.Any = None,
        store_result: bool = True, call_errbacks: bool = True, state: str = states.FAILURE,
    ) -> None:  # fmt: skip
        super().mark_as_failure(
            task_id, exc, traceback, request, store_result, call_errbacks, state
        )
        if not store_result or getattr(request, "chord", None):
            final, fields = _outcome(exc)
            self._finish_without_result(task_id, final or JobState.FAILED, fields, request)

    def _finish_without_result(
        self, task_id: str, state: str, fields: dict[str, str], request: t.Any
    ) -> None:
        if getattr(request, "is_eager", False):
            return  # It ran in the process of its caller and has no record.
        self._ensure_retryable(lambda: self._finish(task_id, state, "", fields, request))

    def mark_as_revoked(
        self, task_id: str, reason: str = "", request: t.Any = None, store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:  # fmt: skip
        super().mark_as_revoked(task_id, reason, request, store_result, state)
        if not store_result or getattr(request, "chord", None):
            self._finish_without_result(task_id, JobState.CANCELLED, {}, request)

    def _get_task_meta_for(self, task_id: str) -> dict[str, t.Any]:
        if self._plain:
            # PENDING for what has no result, as Celery's users expect.
            return t.cast("dict[str, t.Any]", super()._get_task_meta_for(task_id))
        # State first: a job that was over by then has its result already.
        state = self.store.state(task_id)
        meta: dict[str, t.Any] = super()._get_task_meta_for(task_id)
        if meta["status"] == states.PENDING and state is not None:
            meta |= {"status": state.celery, "task_id": task_id}
        return meta


_second = 0, ""


def _now() -> str:
    """The time in ISO 8601, all but its fraction made once a second."""
    global _second
    now = time.time()
    second, text = _second
    if int(now) != second:
        second = int(now)
        text = datetime.fromtimestamp(second, UTC).isoformat()[:19]
        _second = second, text
    return f"{text}.{int((now - second) * 1e6):06d}+00:00"


def _redelivered(request: t.Any) -> bool:
    info = getattr(request, "delivery_info", None) or {}
    return fence(request) > 1 or bool(info.get("redelivered"))


def _outcome(result: t.Any) -> tuple[str, dict[str, str]]:
    """What an error means for the record: a state other than Celery's, and what people read."""
    if not isinstance(result, BaseException):
        return "", {}
    job = running_job()
    text = str(result)[:ERROR_LIMIT]
    if job is not None:
        text = job.mask(text)
    fields = {"error": text, "error_type": type(result).__name__}
    if isinstance(result, UserError):
        fields["user_error"] = text
    return (JobState.DEAD if isinstance(result, DeliveriesExhausted) else ""), fields
