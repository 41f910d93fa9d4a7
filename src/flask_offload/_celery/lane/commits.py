"""Group commit: what several jobs have to tell the server goes there in one round trip.

Whatever is ready is sent as soon as the last answer is there, so that nothing waits for others. A
worker that dies in between has jobs that run again: their leases still stand.
"""

from __future__ import annotations

import logging
import threading
import time
import typing as t
from collections import deque

from ..._store import Finished, Store, StoreUnavailable

__all__ = ["Commits"]

log = logging.getLogger("flask_offload")

#: Most ends of jobs that wait; who has one more waits for room, as when the server is away.
BOUND = 1_000
#: Most ends of one round trip: the server does nothing else meanwhile.
GROUP = 100
#: Seconds that a job runs before its start is told by itself.
SOON = 0.02
#: Seconds between two attempts while the server is away.
RETRY = 0.5


class Commits:
    """What the jobs of this process have to tell, and the thread that does.

    :param over: Called with each end that the server has answered, and the answer.
    """

    def __init__(self, store: Store, over: t.Callable[[Finished, int], None]) -> None:
        self._store = store
        self._over = over
        #: Called now and then while jobs start; returns whether it wants to be called again.
        self.watch: t.Callable[[], bool] = lambda: False
        self.reset()

    def reset(self) -> None:
        """Forget all: what a forked child has of it is its parent's."""
        self._ends: deque[Finished] = deque()
        self._starts: deque[tuple[float, Start]] = deque()
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None
        self._waiting = self._asleep = self._sending = False

    def finish(self, end: Finished) -> None:
        """Tell the end of a job; waits where too many are waiting."""
        with self._ready:
            while len(self._ends) >= BOUND:
                self._ready.wait()
            self._ends.append(end)
            self._wake()

    def start_soon(self, start: Start) -> None:
        """Tell the start of a job, unless it is over by then."""
        self._starts.append((time.monotonic() + SOON, start))
        self.look()

    def look(self) -> None:
        """Call :attr:`watch` in a moment."""
        if self._asleep or self._thread is None:
            with self._ready:
                self._wake()

    def flush(self, timeout: float | None) -> bool:
        """Wait until all ends are told; false if that took too long."""
        with self._ready:
            return self._ready.wait_for(lambda: not self._ends and not self._sending, timeout)

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="offload-commits", daemon=True)
            self._thread.start()
        elif self._waiting:
            self._ready.notify_all()

    def _run(self) -> None:
        watching = False
        while True:
            with self._ready:
                if not self._ends:
                    # While jobs start it looks again soon, so that none has to wake it for that.
                    # Asleep first, then the look: who adds a start looks the other way round.
                    self._waiting = self._asleep = True
                    self._asleep = not (self._starts or watching)
                    self._ready.wait(None if self._asleep else SOON)
                    self._asleep = self._waiting = False
                group = [self._ends.popleft() for _ in range(min(GROUP, len(self._ends)))]
                self._sending = bool(group)
            if group:
                self._commit(group)
            self._tell_starts()
            watching = self.watch()

    def _commit(self, group: list[Finished]) -> None:
        self.settle(group)
        with self._ready:
            self._sending = False
            self._ready.notify_all()

    def settle(self, group: list[Finished]) -> None:
        """Tell the ends of some jobs, in the thread of the caller."""
        if not group:
            return
        answers = self._store_all(group)
        if answers is None:
            # One of them is in the way of all.
            answers = [(self._store_all([end]) or [0])[0] for end in group]
        for end, answer in zip(group, answers, strict=True):
            self._over(end, answer)

    def _store_all(self, group: list[Finished]) -> list[int] | None:
        """What the server answers, once it is there; ``None`` if it refuses for good."""
        while True:
            try:
                return self._store.finish_all(group)
            except StoreUnavailable as error:
                if error.for_good:
                    log.error("Results could not be stored. %s", error)
                    return None
                log.warning("%d results wait for the server. %s", len(group), error)
                time.sleep(RETRY)
            except Exception:
                log.exception("Results could not be stored.")
                return None

    def _tell_starts(self) -> None:
        now = time.monotonic()
        while self._starts and (self._starts[0][1].over or self._starts[0][0] <= now):
            _, start = self._starts.popleft()
            if start.over:
                continue
            try:
                start.tell()
            except StoreUnavailable as error:
                if error.for_good:
                    continue
                self._starts.append((time.monotonic() + RETRY, start))
                return
            except Exception:
                log.exception("The start of a job was not told.")


class Start(t.Protocol):
    """A start that may be told."""

    over: bool

    def tell(self) -> None: ...
