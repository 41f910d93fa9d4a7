"""The only place that knows keys, scripts and redis."""

from __future__ import annotations

from . import deferred as deferred  # before anything imports redis
from .address import connection_options, with_ours
from .adoption import Adoption, Arrival, Entry, as_bytes
from .ahead import Ahead
from .bell import Bell
from .checks import Fault, Health, examine
from .connection import CLIENT_NAME, Deadline, StoreUnavailable
from .data import (
    Accepted,
    Delivery,
    Fetched,
    Finished,
    NewJob,
    Started,
    WorkerInfo,
)
from .deliveries import fetched
from .feed import Feed, Subscription
from .files import FileStore, safe_name
from .line import Line, Standing
from .overview import Overview, QueueInfo, overview
from .rights import Role, acl
from .scripts import read_all as read_scripts
from .sentinel import Primary, SentinelConnection, SentinelTLSConnection
from .statistics import Minute, Statistics, statistics
from .store import Store

__all__ = [
    "CLIENT_NAME",
    "Accepted",
    "Adoption",
    "Ahead",
    "Arrival",
    "Bell",
    "Deadline",
    "Delivery",
    "Entry",
    "Fault",
    "Feed",
    "Fetched",
    "FileStore",
    "Finished",
    "Health",
    "Line",
    "Minute",
    "NewJob",
    "Overview",
    "Primary",
    "QueueInfo",
    "Role",
    "SentinelConnection",
    "SentinelTLSConnection",
    "Standing",
    "Started",
    "Statistics",
    "Store",
    "StoreUnavailable",
    "Subscription",
    "WorkerInfo",
    "acl",
    "as_bytes",
    "connection_options",
    "examine",
    "fetched",
    "overview",
    "read_scripts",
    "safe_name",
    "statistics",
    "with_ours",
]
