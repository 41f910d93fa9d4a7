"""The only place that knows keys, scripts and redis."""

from __future__ import annotations

from .connection import Deadline, StoreUnavailable
from .feed import Feed, Subscription
from .files import FileStore, safe_name
from .store import NewJob, Started, Store, WorkerInfo

__all__ = [
    "Deadline",
    "Feed",
    "FileStore",
    "NewJob",
    "Started",
    "Store",
    "StoreUnavailable",
    "Subscription",
    "WorkerInfo",
    "safe_name",
]
