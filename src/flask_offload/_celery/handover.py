"""What a worker has been given and will not start goes back to the line."""

from __future__ import annotations

import typing as t

from celery.worker import state as worker_state

from .message import AT_ONCE

__all__ = ["not_to_start"]


def not_to_start() -> list[str]:
    """The delivery tags of jobs that the pool of this worker is kept from starting.

    Celery calls them reserved, and forgets them when its connection is lost or it stops. What has
    reached a process or a thread of the pool is none of them: it may start at any moment, and some
    start without asking.
    """
    # Those of the lane have no message. They are started, or given back, by the lane.
    waiting = worker_state.reserved_requests - worker_state.active_requests
    return [
        request.message.delivery_tag
        for request in waiting
        if request.message is not None and not request.acknowledged and _keep_from_starting(request)
    ]


def _keep_from_starting(request: t.Any) -> bool:
    if request._apply_result is None:
        return True  # It waits for a token of its rate, not in the pool.
    result = request._apply_result()
    if result is not None and hasattr(result, "_write_to"):
        if result._write_to is None:
            return True  # No process of the prefork pool has it.
        # The process does, and the pool must not forget that, as it does with what it takes for
        # not accepted: the process would wait half a minute for its result to be read.
        result._accepted = True
    # Should it start all the same, it asks, and is refused.
    return AT_ONCE not in request.request_dict
