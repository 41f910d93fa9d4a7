"""A call that takes the short way to the line, and the same call on the long one."""

from __future__ import annotations

import json
import typing as t
from types import ModuleType

import pytest

from flask_offload._celery.message import delivered
from flask_offload._celery.plain import PUBLISH
from flask_offload._store import Delivery

#: What differs from one call to the next.
OWN = {"created_at", "due_at", "place", "event_id", "envelope"}


class Both:
    """Makes each call on both ways, and tells what came of it.

    :param short: Where the function is that takes the short way, or returns nothing; and its name.
    """

    def __init__(
        self, celery: t.Any, short: tuple[ModuleType, str], patch: pytest.MonkeyPatch
    ) -> None:
        self.celery = celery
        self.store = celery.backend.store
        self.short = 0
        self._place = short
        self._patch = patch

    def __call__(self, call: t.Callable[[], t.Any]) -> tuple[t.Any, t.Any]:
        took: list[bool] = []
        enqueue = getattr(*self._place)

        def watched(*args: t.Any) -> t.Any:
            job = enqueue(*args)
            took.append(job is not None)
            return job

        with self._patch.context() as patch:
            patch.setattr(*self._place, watched)
            first = self.outcome(call)
        self.short += any(took)
        with self._patch.context() as patch:
            patch.setattr(*self._place, lambda *args: None)
            second = self.outcome(call)
        return first, second

    def outcome(self, call: t.Callable[[], t.Any]) -> t.Any:
        """The record, the message and the result of a call; or its error."""
        try:
            job = call()
        except Exception as error:
            return type(error), str(error)
        store = self.store
        record = store.call("HGETALL", store.keys.job(job.id))
        kept = {name: value for name, value in record.items() if name not in OWN}
        line = store.keys.queue(record["queue"])
        kept["waits"] = store.call("ZSCORE", line, job.id) is not None
        due = store.call("ZSCORE", f"{store.keys.prefix}scheduled", job.id)
        if due is not None:
            kept["due in"] = round(float(due) - float(record["created_at"]), 1)
        message = delivered(Delivery(job.id, 1, record["queue"], record["envelope"]))
        message["properties"].pop(PUBLISH, None)
        if eta := message["headers"].pop("offload_eta", None):
            assert eta[:4].isdecimal()
            message["headers"]["offload_eta"] = len(eta)
        result = type(job), job.ignored, job.backend is self.celery.backend, job.parent
        text = json.dumps([kept, message], sort_keys=True).replace(job.id, "<id>")
        return *json.loads(text), result
