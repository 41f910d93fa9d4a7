"""What one live stream is told, and the news that wait for it."""

from __future__ import annotations

import threading
import time
import typing as t
from dataclasses import dataclass, field

from .._jobs import JobRecord, LogLine

if t.TYPE_CHECKING:
    from .client import Client

__all__ = ["Reader", "Snapshot"]

T = t.TypeVar("T")


@dataclass(eq=False, slots=True)
class Snapshot:
    """A job as it is, for all streams that show it.

    :param record: ``None`` if there is no such job any more.
    :param facts: What is known of it that is not in the record.
    :param at: When it was read.
    :param first: The log lines after this number are in ``tail``; ``None`` where nobody looked.
    :param whole: Whether result and log were read.
    """

    record: JobRecord | None
    facts: t.Any
    at: float
    first: int | None
    tail: tuple[LogLine, ...]
    whole: bool
    _made: dict[t.Hashable, t.Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def same_as(self, other: Snapshot | None) -> bool:
        """Whether there is nothing new in it."""
        return (
            other is not None
            and (self.record, self.facts) == (other.record, other.facts)
            and self.whole == other.whole
        )

    def lines_after(self, seq: int) -> list[LogLine] | None:
        """The log lines with a number above ``seq``; ``None`` if some of them are not here."""
        if self.first is None or seq < self.first:
            return None
        if not self.tail or self.tail[-1].seq <= seq:
            return []
        return [line for line in self.tail if line.seq > seq]

    def once(self, key: t.Hashable, make: t.Callable[[], T]) -> T:
        """What ``make`` returns, made for the first reader that asks with ``key``."""
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            return t.cast("T", self._made[key])


class Reader:
    """The place where a stream finds its news: of each job the newest, so that it cannot grow.

    :param whole: Whether the stream shows results and logs.
    :param client: The connection to who reads.
    """

    def __init__(self, whole: bool, client: Client | None) -> None:
        self.whole = whole
        self._client = client
        self._lock = threading.Lock()
        # Held while there is no news: half of the cost of a condition, which counts where one
        # change goes to a thousand streams.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._rung = False
        self._news: dict[str, Snapshot] = {}
        self._closed = False
        self._busy_since: float | None = None

    def take(self, timeout: float) -> dict[str, Snapshot] | None:
        """What is new, once there is something.

        :return: Empty after ``timeout`` seconds; ``None`` when the stream is to end.
        """
        self._busy_since = None
        heard = self._bell.acquire(timeout=timeout)
        with self._lock:
            if self._rung and not heard:
                # Just when the time was over.
                self._bell.acquire()
            self._rung = False
            self._busy_since = time.monotonic()
            news, self._news = self._news, {}
            return None if self._closed else news

    def put(self, news: t.Mapping[str, Snapshot]) -> bool:
        """Have snapshots taken, together; false if they lack what the reader shows."""
        fit = {i: snapshot for i, snapshot in news.items() if snapshot.whole or not self.whole}
        if not fit:
            return False
        with self._lock:
            self._news.update(fit)
            self._ring()
        return True

    def close(self) -> None:
        """End the stream; what was not taken is not told any more."""
        with self._lock:
            self._closed = True
            self._client = None
            self._ring()

    def _ring(self) -> None:
        if not self._rung:
            self._rung = True
            self._bell.release()

    def sent(self) -> None:
        """Note that the server has taken a piece of what the stream says."""
        self._busy_since = time.monotonic()

    def busy(self, now: float) -> float:
        """Seconds since it last got rid of something, unless it waits for news."""
        since = self._busy_since
        return 0.0 if since is None else now - since

    def gone(self) -> bool:
        """Whether the client has left."""
        client = self._client
        return client is not None and client.gone()

    def drop(self) -> None:
        """End the stream and cut its connection, on which its thread may be stuck."""
        with self._lock:
            # The connection is another request's once the stream has ended.
            if self._client is not None:
                self._client.cut()
        self.close()
