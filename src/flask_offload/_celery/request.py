"""What the worker's main process knows of a message in hand."""

from __future__ import annotations

import contextlib

from celery.worker.request import Request

from .._store import StoreUnavailable
from .tracing import attempt

__all__ = ["OffloadRequest"]


class OffloadRequest(Request):  # type: ignore[misc]
    """Keeps the record in step when a message goes back to the broker."""

    def reject(self, requeue: bool = False) -> None:
        in_hand = not self.acknowledged
        super().reject(requeue=requeue)
        if in_hand and requeue:
            with contextlib.suppress(StoreUnavailable):
                self._app.store.requeue(self.id, attempt(self._request_dict))
