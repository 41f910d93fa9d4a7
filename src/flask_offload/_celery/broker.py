"""Publishing to the broker within a budget of time."""

from __future__ import annotations

import typing as t

from kombu.exceptions import OperationalError

from ..exceptions import EnqueueError

if t.TYPE_CHECKING:
    from .._store import Deadline
    from .app import OffloadCelery

__all__ = ["put"]


def put(
    app: OffloadCelery,
    publish: t.Callable[..., t.Any],
    options: dict[str, t.Any],
    deadline: Deadline,
) -> t.Any:
    """Call ``publish`` with a producer of the pool, or the one that ``options`` name."""
    given = options.pop("producer", None) or options.pop("publisher", None)
    if given is not None:
        return publish(producer=given, retry=False, **options)
    for last in (False, True):
        left = deadline.left()
        if not left:
            raise EnqueueError("The job was not accepted: no connection to the broker was free.")
        with app.producer_pool.acquire(block=True, timeout=left) as producer:
            limits = {"confirm_timeout": max(0.05, deadline.left()), "retry": False}
            try:
                return publish(producer=producer, **limits, **options)
            except Exception as error:
                if not isinstance(error, TimeoutError) and not _broken(producer.connection, error):
                    raise
                # Never give a broken connection back as it is. One that had gone stale in the
                # pool says nothing about the broker, so a fresh one is tried, once.
                producer.connection.collect()
                if last or not deadline.left():
                    raise
    raise AssertionError("unreachable")


def _broken(connection: t.Any, error: Exception) -> bool:
    kinds = (OperationalError, *connection.connection_errors, *connection.channel_errors)
    return isinstance(error, kinds)
