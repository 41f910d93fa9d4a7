"""How many threads the web server has."""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

__all__ = ["threads"]


def threads() -> int | None:
    """The size of the pool that this thread is of; ``None`` where there is none, or nobody knows.

    Gunicorn tells an application nothing of its ``--threads``. A thread of an executor has a
    reference to it; where a future Python keeps it elsewhere, the setting alone decides.
    """
    found = next(iter(getattr(threading.current_thread(), "_args", None) or ()), None)
    executor = found() if isinstance(found, weakref.ref) else None
    return executor._max_workers if isinstance(executor, ThreadPoolExecutor) else None
