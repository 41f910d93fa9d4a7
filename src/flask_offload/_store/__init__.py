"""The only place that knows keys, scripts and redis."""

from __future__ import annotations

from .adoption import Adoption, Arrival, Entry, as_bytes
from .connection import Deadline, StoreUnavailable
from .data import Delivery, NewJob, Started, WorkerInfo
from .feed import Feed, Subscription
from .files import FileStore, safe_name
from .store import Store

__all__ = [
    "Adoption",
    "Arrival",
    "Deadline",
    "Delivery",
    "Entry",
    "Feed",
    "FileStore",
    "NewJob",
    "Started",
    "Store",
    "StoreUnavailable",
    "Subscription",
    "WorkerInfo",
    "as_bytes",
    "safe_name",
]
