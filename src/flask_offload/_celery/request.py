"""What the worker's main process knows of a message in hand."""

from __future__ import annotations

import contextlib
import typing as t

from celery.concurrency.thread import TaskPool as Threads
from celery.worker.request import Request

from .._current import mask
from .._store import StoreUnavailable
from . import describe, interrupt
from .tracing import attempt, fence

__all__ = ["OffloadRequest"]


class OffloadRequest(Request):  # type: ignore[misc]
    """Keeps the record in step when a message goes back to the broker."""

    def send_event(self, type: str, **fields: t.Any) -> None:  # noqa: A002
        if getattr(self.task, "sensitive", ()):
            secrets = describe.arguments(self.task, self.args, self.kwargs).secrets
            fields = {
                name: mask(value, secrets) if isinstance(value, str) else value
                for name, value in fields.items()
            }
        super().send_event(type, **fields)

    def info(self, safe: bool = False) -> t.Any:
        """What ``celery inspect active`` shows: nothing of what is sensitive."""
        return super().info(safe=safe or bool(getattr(self.task, "sensitive", ())))

    def terminate(self, pool: t.Any, signal: t.Any = None) -> None:
        if isinstance(pool, Threads):
            # They cannot be killed. One that is about to start will be told by the record.
            interrupt.stop(self.id, fence(self._request_dict))
        else:
            super().terminate(pool, signal)

    def acknowledge(self) -> None:
        if not self.acknowledged and self.task.acks_late and self._engine is not None:
            # The result is stored by now, and with it the lease has ended.
            self._engine.finished(self.message.delivery_tag)
        super().acknowledge()

    @property
    def _engine(self) -> t.Any:
        return self._app.engine if fence(self._request_dict) else None

    def reject(self, requeue: bool = False) -> None:
        in_hand = not self.acknowledged
        super().reject(requeue=requeue)
        if in_hand and requeue and self._engine is None:
            with contextlib.suppress(StoreUnavailable):
                self._app.store.requeue(self.id, attempt(self._request_dict))
