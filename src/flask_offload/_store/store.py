"""The record of every job: one manager for all transitions and queries."""

from __future__ import annotations

from .deliveries import Deliveries
from .elsewhere import Elsewhere
from .queries import Queries
from .records import Records

__all__ = ["Store"]


class Store(Records, Deliveries, Elsewhere, Queries):
    """The jobs of one namespace. See the four parts for what can be done."""
