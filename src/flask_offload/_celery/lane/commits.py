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

from ..._store import Ahead, Finished, Store, StoreUnavailable

__all__ = ["Commits"]

log = logging.getLogger("flask_offload")

#: Most ends of jobs that wait; who has one more waits for room, as when the server is away.
BOUND = 1_000
#: Most ends of one round trip: the server does nothing else meanwhile.
GROUP = 100
#: Seconds from one group to the next, unless it is full, of a thread that runs jobs.
PAUSE = 0.005
#: Ends for which such a thread waits for the answer of the group before.
MANY = 500
#: Seconds that a job runs before its start is told by itself.
SOON = 0.02
#: Seconds between two attempts while the server is away.
RETRY = 0.5


class Commits:
    """What the jobs of this process have to tell, and the thread that does.

    That thread needs the interpreter for each of its steps, and gets it from a busy one after 5 ms.
    Whoever runs one quick job after the other therefore has them told itself, between two of them;
    see :meth:`carry`.

    :param over: Called with ends that the server has answered, and the answers.
    """

    def __init__(
        self, store: Store, over: t.Callable[[t.Sequence[Finished], t.Sequence[int]], None]
    ) -> None:
        self._store = store
        self._over = over
        #: Called now and then while jobs start; returns whether it wants to be called again.
        self.watch: t.Callable[[], bool] = lambda: False
        self.reset()

    def reset(self) -> None:
        """Forget all: what a forked child has of it is its parent's."""
        self._ends: deque[Finished] = deque()
        #: Those of jobs that run, and when they are to be told.
        self._starts: dict[Start, float] = {}
        self._started_at = 0.0
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None
        self._waiting = self._asleep = self._sending = self._looks = False
        #: Whether somebody comes by who has what is told here told.
        self._carried = False
        self._carried_at = 0.0
        self._flushes = 0
        #: What was sent, and is not answered yet.
        self._flight: list[Finished] = []
        self._ahead = Ahead(self._store)
        # Of who sends.
        self._turn = threading.Lock()

    def finish(self, end: Finished) -> None:
        """Tell the end of a job; waits where too many are waiting."""
        if self._carried and len(self._ends) < BOUND:
            self._ends.append(end)
            # Who puts it down looks afterwards what there is.
            if self._carried:
                return
            with self._ready:
                self._wake()
            return
        with self._ready:
            while len(self._ends) >= BOUND:
                self._carried = False
                self._wake()
                self._ready.wait()
            self._ends.append(end)
            self._wake()

    # -- by who runs jobs

    def carry(self) -> None:
        """Send what there is, and read what was answered, without waiting for anything.

        From here on nobody else does, until :meth:`put_down`.
        """
        now = time.monotonic()
        if self._flushes or now < self._carried_at or not self._turn.acquire(blocking=False):
            return
        try:
            if not self._carried:
                self._carried = True
                if self._flushes:  # who came in between looked before this
                    self._carried = False
                    return
                self.look()
            if self._flight:
                if len(self._ends) < MANY and not self._ahead.answered:
                    return
                self._land()
            if len(self._ends) >= GROUP or (self._ends and now - self._carried_at > PAUSE):
                self._carried_at = now
                group = self._group()
                self._ahead.ask(self._store.finish_command(group))
        except StoreUnavailable:
            # The thread knows what to do about it.
            self._carried_at = now + RETRY
            self._undo()
            self.put_down()
        finally:
            self._turn.release()

    def put_down(self) -> None:
        """Leave the rest to the thread."""
        if self._carried:
            self._carried = False
            if self._ends or self._flight:
                with self._ready:
                    self._wake()

    def _land(self) -> None:
        """Read an answer; waits for it."""
        self._over(self._flight, self._ahead.read())
        with self._ready:
            self._flight = []
            self._ready.notify_all()

    def _undo(self) -> None:
        """Have what was sent, or was to be, sent once more. The server takes no end twice."""
        with self._ready:
            self._ends.extendleft(reversed(self._flight))
            self._flight = []

    def _group(self) -> list[Finished]:
        with self._ready:
            ends = self._ends
            self._flight = [ends.popleft() for _ in range(min(GROUP, len(ends)))]
            return self._flight

    def start_soon(self, start: Start) -> None:
        """Tell the start of a job, unless it is over by then."""
        self._starts[start] = start.began + SOON
        self._started_at = start.began
        if self._asleep or self._thread is None:
            self.look()

    def started(self, start: Start) -> None:
        """Tell a start no more: the job is over."""
        self._starts.pop(start, None)

    def look(self) -> None:
        """Call :attr:`watch` in a moment."""
        self._looks = True
        if self._asleep or self._thread is None:
            with self._ready:
                self._wake()

    def flush(self, timeout: float | None) -> bool:
        """Wait until all ends are told; false if that took too long."""
        with self._ready:
            self._flushes += 1
            self._carried = False
            try:
                if self._ends or self._flight:
                    self._wake()
                return self._ready.wait_for(self._is_clear, timeout)
            finally:
                self._flushes -= 1

    def _is_clear(self) -> bool:
        return not (self._ends or self._sending or self._flight)

    # -- by the thread

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
                if self._carried or not (self._ends or self._flight):
                    # While jobs start it looks again soon, so that none has to wake it for that.
                    # Asleep first, then the look: who adds a start looks the other way round.
                    self._waiting = self._asleep = True
                    self._asleep = not (
                        self._starts
                        or watching
                        or self._carried
                        or self._looks
                        or time.monotonic() - self._started_at < SOON
                    )
                    self._ready.wait(None if self._asleep else SOON)
                    self._asleep = self._waiting = False
            if not self._carried:
                self._send()
            self._tell_starts()
            self._looks = False
            watching = self.watch()

    def _send(self) -> None:
        with self._turn:
            if self._flight:
                try:
                    self._land()
                except StoreUnavailable:
                    self._undo()
            with self._ready:
                group = [self._ends.popleft() for _ in range(min(GROUP, len(self._ends)))]
                self._sending = bool(group)
            if group:
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
        self._over(group, answers)

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
        for start, due in self._starts.copy().items():
            if not start.over and time.monotonic() < due:
                continue
            self._starts.pop(start, None)
            if start.over:
                continue
            try:
                start.tell()
            except StoreUnavailable as error:
                if error.for_good:
                    continue
                self._starts[start] = time.monotonic() + RETRY
                return
            except Exception:
                log.exception("The start of a job was not told.")


class Start(t.Protocol):
    """A start that may be told."""

    began: float
    over: bool

    def tell(self) -> None: ...
