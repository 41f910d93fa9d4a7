"""What the worker does with messages that it cannot run."""

from __future__ import annotations

import functools
import typing as t

from celery.worker.consumer import Consumer

from . import elsewhere
from .handover import not_to_start

__all__ = ["OffloadConsumer"]


class OffloadConsumer(Consumer):  # type: ignore[misc]
    """Throws nothing away: what is unknown here may be known elsewhere, and what cannot be read is
    kept."""

    def ensure_connected(self, conn: t.Any) -> t.Any:
        # Celery's own pauses grow to half a minute, for which jobs would wait after a server that
        # was away for long is there again.
        conn.ensure_connection = functools.partial(
            conn.ensure_connection, interval_start=0.2, interval_step=0.3, interval_max=2
        )
        return super().ensure_connected(conn)

    def on_close(self) -> None:
        if self.app.engine is not None:
            self.app.engine.abandon(not_to_start())
            if self.app.engine.lane is not None:
                self.app.engine.lane.disconnected()
        super().on_close()

    def on_unknown_task(self, body: t.Any, message: t.Any, exc: Exception) -> None:
        if self.app.engine is None:
            elsewhere.park(self, message)
            return
        if not self._is_ours(message):
            super().on_unknown_task(body, message, exc)
            return
        name = message.headers["task"]
        engine = self.app.engine
        if not engine.park(message.delivery_tag, name):
            error = f"No worker knew the task {name} for the time that OFFLOAD_PARK_FOR allows."
            engine.bury(message.delivery_tag, error, "NotRegistered")
        self._forget(message)

    def on_unknown_message(self, body: t.Any, message: t.Any) -> None:
        self._bury(message, "It is not a task message.") or super().on_unknown_message(
            body, message
        )

    def on_invalid_task(self, body: t.Any, message: t.Any, exc: Exception) -> None:
        self._bury(message, repr(exc)) or super().on_invalid_task(body, message, exc)

    def on_decode_error(self, message: t.Any, exc: Exception) -> None:
        self._bury(message, repr(exc)) or super().on_decode_error(message, exc)

    def _bury(self, message: t.Any, why: str) -> bool:
        if self.app.engine is None:
            elsewhere.bury(self, message, f"The message cannot be read: {why}")
            return True
        if not self._is_ours(message):
            return False
        self.app.engine.bury(message.delivery_tag, f"The message cannot be read: {why}")
        self._forget(message)
        return True

    def _forget(self, message: t.Any) -> None:
        # For kombu it is dealt with; the lease has ended already.
        self.app.engine.finished(message.delivery_tag)
        message.ack_log_error(None, self.connection_errors)

    def _is_ours(self, message: t.Any) -> bool:
        tag = message.delivery_tag
        engine = self.app.engine
        return engine is not None and isinstance(tag, str) and bool(engine.holds(tag))
