"""How many live streams there may be."""

from __future__ import annotations

import threading
import typing as t

from .pool import threads

if t.TYPE_CHECKING:
    from .client import Client

__all__ = ["Places"]


class Place:
    """The stream of one owner."""

    def __init__(self, places: Places, owner: str, client: Client | None) -> None:
        self.owner = owner
        self.client = client
        self._places = places

    def give_back(self) -> None:
        """It has ended."""
        self._places.free(self)


class Places:
    """The streams that a process may hold, and one owner of them.

    :param limit: Most in all.
    :param per_owner: Most of one owner.
    """

    def __init__(self, limit: int, per_owner: int) -> None:
        self._limit = limit
        self._per_owner = per_owner
        self._lock = threading.Lock()
        self._held: set[Place] = set()
        self._owners: dict[str, set[Place]] = {}

    def take(self, owner: str, client: Client | None) -> Place | None:
        """Take a place; ``None`` if there is none."""
        pool = threads()
        # Streams never take the last threads, or the app would answer nobody else.
        limit = self._limit if pool is None else min(self._limit, pool // 2)
        place = Place(self, owner, client)
        with self._lock:
            mine = self._owners.get(owner, set())
            # Who loads a page again and again has left the streams before, which end in a moment.
            there = mine
            if len(mine) >= self._per_owner:
                there = {p for p in mine if p.client is None or not p.client.gone()}
            if len(self._held) >= limit or len(there) >= self._per_owner:
                return None
            self._held.add(place)
            self._owners.setdefault(owner, set()).add(place)
        return place

    def free(self, place: Place) -> None:
        """Note that a stream has ended."""
        with self._lock:
            if place not in self._held:
                return
            self._held.discard(place)
            self._owners[place.owner].discard(place)
            if not self._owners[place.owner]:
                del self._owners[place.owner]
