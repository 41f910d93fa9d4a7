"""The only place that knows keys, scripts and redis."""

from __future__ import annotations

from .connection import Deadline, StoreUnavailable
from .data import Delivery, NewJob, Started, WorkerInfo
from .feed import Feed, Subscription
from .files import FileStore, safe_name
from .store import Store

__all__ = [
    "Deadline",
    "Delivery",
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
