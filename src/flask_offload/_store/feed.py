"""One reader a process for the events of all jobs.

An event is a doorbell: it says that a job changed, not what it is now. Whoever waits subscribes
first and reads the record after, so the last change is never missed; and a lost or trimmed event
costs nothing, because the next look at the record shows the same state.
"""

from __future__ import annotations

import os
import threading
import time
import typing as t
from contextlib import contextmanager

from .connection import Deadline, StoreUnavailable

if t.TYPE_CHECKING:
    from .store import Store

__all__ = ["Feed", "Subscription"]

BLOCK = 5.0
BATCH = 1_000
#: Least seconds from one read to the next: what many jobs do at once is read at once. An event
#: that comes alone does not wait for it.
SPACING = 0.01

#: Is told the ids of jobs that changed; ``None`` means all, because any may have changed. Called
#: by the thread that reads, so it must not wait for anything.
Listener = t.Callable[[set[str] | None], None]


class Subscription:
    """Waits for changes of some jobs; use it in a ``with`` statement."""

    def __init__(self, feed: Feed, job_ids: t.Iterable[str]) -> None:
        self.job_ids = frozenset(job_ids)
        self._feed = feed
        self._changed: set[str] = set()
        self._condition = threading.Condition()

    def wait(self, timeout: float) -> set[str]:
        """The ids of the jobs that changed since the last call; empty after ``timeout`` seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self._changed, timeout)
            changed, self._changed = self._changed, set()
            return changed

    def _notify(self, job_ids: set[str] | None) -> None:
        with self._condition:
            self._changed |= self.job_ids if job_ids is None else self.job_ids & job_ids
            if self._changed:
                self._condition.notify_all()

    def __enter__(self) -> Subscription:
        self._feed.add(self._notify)
        return self

    def __exit__(self, *exc: object) -> None:
        self._feed.remove(self._notify)


class Feed:
    """Reads the stream of events while somebody listens."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._running = False
        self._ready = threading.Event()

    def subscribe(self, job_ids: t.Iterable[str]) -> Subscription:
        """Hear of every change that these jobs make after the ``with`` statement was entered."""
        return Subscription(self, job_ids)

    @contextmanager
    def heard_by(self, listener: Listener) -> t.Iterator[None]:
        """Have ``listener`` told of the changes of all jobs."""
        self.add(listener)
        try:
            yield
        finally:
            self.remove(listener)

    def add(self, listener: Listener) -> None:
        """Begin to tell ``listener``; what happens after the return is told."""
        if self._pid != os.getpid():
            # The reader is a thread, and threads do not survive a fork.
            self._reset()
        with self._lock:
            self._listeners.append(listener)
            if not self._running:
                self._running = True
                self._ready = threading.Event()
                threading.Thread(target=self._read, name="offload-feed", daemon=True).start()
            ready = self._ready
        # Until the reader knows where the stream ends, a change could fall between the record
        # that the caller reads next and the first event that the reader sees.
        ready.wait(self._store.timeout)

    def remove(self, listener: Listener) -> None:
        """Tell ``listener`` no more."""
        with self._lock:
            if listener in self._listeners:  # not after a fork
                self._listeners.remove(listener)

    def _read(self) -> None:
        cursor: str | None = None
        pause = 0.1
        while True:
            with self._lock:
                if not self._listeners:
                    self._running = False
                    return
            try:
                if cursor is None:
                    cursor = self._end()
                    # What came while nobody read is not in the stream any more for us.
                    self._notify(None)
                    self._ready.set()
                began = time.monotonic()
                cursor = self._step(cursor)
                pause = 0.1
                # Each read of a busy server would find one event more.
                time.sleep(max(0.0, began + SPACING - time.monotonic()))
            except StoreUnavailable:
                cursor = None
                time.sleep(pause)
                pause = min(2.0, pause * 2)

    def _end(self) -> str:
        key = self._store.keys.events
        entries = self._store.call("XREVRANGE", key, "+", "-", "COUNT", 1)
        return t.cast("str", entries[0][0]) if entries else "0-0"

    def _step(self, cursor: str) -> str:
        command = ("XREAD", "COUNT", BATCH, "BLOCK", int(BLOCK * 1000))
        reply = self._store.call(
            *command, "STREAMS", self._store.keys.events, cursor,
            deadline=Deadline.after(BLOCK + self._store.timeout),
        )  # fmt: skip
        if not reply:
            return cursor
        # RESP3 answers with a map, RESP2 with pairs.
        ((_, entries),) = reply.items() if isinstance(reply, dict) else reply
        changed: set[str] = set()
        for _, fields in entries:
            pairs = dict(zip(fields[::2], fields[1::2], strict=True))
            # Several that changed in one step are told together.
            changed.update(pairs.get("jobs", "").split() or [pairs.get("job", "")])
        self._notify(changed)
        return t.cast("str", entries[-1][0])

    def _notify(self, job_ids: set[str] | None) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener(job_ids)
