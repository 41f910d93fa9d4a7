"""The record of every job: one manager for all transitions and queries."""

from __future__ import annotations

from .deliveries import Deliveries
from .elsewhere import Elsewhere
from .entry import Entry
from .queries import Queries
from .records import Records

__all__ = ["Store"]


class Store(Entry, Records, Deliveries, Elsewhere, Queries):
    """The jobs of one namespace. See the five parts for what can be done."""
