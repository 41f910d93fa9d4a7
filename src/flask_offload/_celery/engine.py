"""What one process holds of the line of jobs, on lease.

A lease is kept on the server. A thread of its own renews it, so that a busy task cannot keep it
from doing so, and learns of leases that were lost. It runs in the process that received the jobs:
in a prefork pool that is not the one which runs them. In a pool of threads it shares the
interpreter with them: native code that keeps the GIL for longer than the lease makes its job run a
second time.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import typing as t
import weakref
from datetime import UTC, datetime

from .._store import Delivery, Fetched, Finished, Store, StoreUnavailable
from .intake import Intake
from .lane.commits import Commits
from .message import AT_ONCE, Message, delivered
from .message import tag as tag_of

if t.TYPE_CHECKING:
    from .._config import Settings
    from .lane.base import Lane

__all__ = ["Engine", "refused"]

log = logging.getLogger("flask_offload")

#: Seconds after which a job is offered again that no worker knew.
PARK = 1.0
#: Seconds until the leases are renewed again when the server was away.
RETRY = 1.0


class Engine(Intake):
    """The jobs that this process holds. Thread-safe; a forked child holds nothing.

    :param settings: For the lease and the limits.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        super().__init__(store, settings)
        #: Name of the worker on the records.
        self.worker = f"consumer/{os.getpid()}"
        #: Whether a Celery worker runs here, which outlives its connections.
        self.in_worker = False
        self.stopping = False
        #: Seconds until the next delayed job is due, when it was last looked at.
        self.due_in: float | None = None
        #: Whether there were more jobs than were asked for.
        self.more = False
        self.on_lost: t.Callable[[str, int], None] | None = None
        #: Called after each heartbeat.
        self.tidy: t.Callable[[], object] = lambda: None
        self.commits = Commits(store, self._told)
        #: Has the event loop of the worker look again. For any thread.
        self.wake: t.Callable[[], object] = lambda: None
        self._reset()
        _instances.add(self)

    def __json__(self) -> str:
        """For the answer to ``inspect stats``, which shows the options of the transport."""
        return self.worker

    def _reset(self) -> None:
        self._held: dict[str, int] = {}
        self._done: set[str] = set()
        self._abandoned: list[str] = []
        self._soon = threading.Event()
        # The handler of a cold shutdown reads what is left of results, in the thread that may hold
        # this right now: it must get in, and what is looked at here may be gone afterwards.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        #: Of a worker whose pool runs jobs in this process.
        self.lane: Lane | None = None
        self.commits.reset()

    # -- holding

    def fetch(self, queues: t.Sequence[str], count: int) -> list[tuple[Message, str]]:
        """Take up to ``count`` jobs, as messages with the name of their queue."""
        found = ((self.message(job), job.queue) for job in self.take(queues, count).jobs)
        return [(message, queue) for message, queue in found if message is not None]

    def take(self, queues: t.Sequence[str], room: int, **asked: t.Any) -> Fetched:
        """Take jobs, as :meth:`.Store.fetch` hands them out; they are held from now on."""
        return self.taken(self.store.fetch(self.worker, queues, room, **asked))

    def taken(self, found: Fetched) -> Fetched:
        """Hold what was handed out."""
        self.due_in, self.more = found.due_in, found.more
        if found.jobs:
            with self._lock:
                self._held.update((delivery.job_id, delivery.fence) for delivery in found.jobs)
            self._start()
        return found

    def message(self, delivery: Delivery) -> Message | None:
        """What a worker sees of a job; ``None`` if it cannot be read, and is dead."""
        try:
            message = delivered(delivery)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self.bury(tag_of(delivery), f"The message cannot be read: {error!r}")
            return None
        message["headers"].pop(AT_ONCE, None)
        if delivery.at_once:
            message["headers"][AT_ONCE] = delivery.origin
        return message

    def holds(self, tag: str) -> bool:
        """Whether a delivery tag is one of ours."""
        return tag.partition(":")[0].isdecimal() and ":" in tag

    def finished(self, tag: str) -> None:
        """Note that the result of a job is stored: its acknowledgement needs no round trip."""
        with self._lock:
            self._done.add(tag)

    def ack(self, tag: str) -> None:
        """End the lease."""
        job_id, fence = self._drop(tag)
        with self._lock:
            if tag in self._done:
                self._done.discard(tag)
                return
        self.store.ack(job_id, fence)

    def release(self, tag: str, *, forgive: bool = False, in_pool: bool = False) -> bool:
        """Give a job back; with ``in_pool``, not to be taken into a lane again.

        :return: False if it was over already, or lost.
        """
        job_id, fence = self._drop(tag)
        return bool(self.store.release(job_id, fence, forgive=forgive, in_pool=in_pool))

    def abandon(self, tags: t.Iterable[str]) -> None:
        """Give jobs back as soon as the server is there; for who cannot wait for it."""
        with self._lock:
            self._abandoned += tags
            self._soon.set()

    def release_all(self) -> None:
        """Give back all that is held, at the end of the process."""
        with self._lock:
            held, self._held = self._held, {}
        for job_id, fence in held.items():
            self.store.release(job_id, fence, forgive=True)

    def park(self, tag: str, task: str) -> bool:
        """Leave a job to a worker that knows its task; false if it was left for too long."""
        job_id, fence = self._drop(tag)
        why = f"No worker knows the task {task}."
        limit = self.settings.park_for
        return self.store.release(job_id, fence, delay=PARK, forgive=True, why=why, limit=limit)

    def bury(self, tag: str, error: str, error_type: str = "UnreadableMessage") -> None:
        """Make a job dead that cannot be read, with all that there is of it."""
        job_id, fence = self._drop(tag)
        log.error("Job %s is dead: %s", job_id, error)
        result = {"exc_type": "RuntimeError", "exc_message": [error], "exc_module": "builtins"}
        meta: dict[str, t.Any] = {
            "status": "FAILURE",
            "result": result,
            "traceback": None,
            "children": [],
        }
        meta |= {"task_id": job_id, "date_done": datetime.now(UTC).isoformat()}
        self.store.bury(job_id, fence, error, error_type, json.dumps(meta))

    def _told(self, ends: t.Sequence[Finished], answers: t.Sequence[int]) -> None:
        with self._lock:
            held = self._held
            for end in ends:
                if held.get(end.job_id) == end.fence:
                    held.pop(end.job_id, None)
        for end, answer in zip(ends, answers, strict=True):
            if answer < 0:
                refused(end.job_id)

    def _drop(self, tag: str) -> tuple[str, int]:
        fence, _, job_id = tag.partition(":")
        with self._lock:
            if self._held.get(job_id) == int(fence):
                self._held.pop(job_id, None)
        return job_id, int(fence)

    # -- staying alive

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="offload-heartbeat", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        pause = self.settings.lease / 3
        while True:
            self._soon.wait(pause)
            self._soon.clear()
            pause = self.settings.lease / 3
            try:
                self.heartbeat()
                self.tidy()
            except StoreUnavailable as error:
                log.warning("The leases could not be renewed: %s", error)
                pause = min(pause, RETRY)
            except Exception:
                log.exception("The leases could not be renewed.")

    def _release_abandoned(self) -> None:
        while True:
            with self._lock:
                if not self._abandoned:
                    return
                tag = self._abandoned.pop()
            try:
                self.release(tag, forgive=True)
            except StoreUnavailable as error:
                if error.for_good:
                    continue
                self.abandon([tag])
                raise

    def heartbeat(self) -> None:
        """Renew the leases, and stop what was lost."""
        self._release_abandoned()
        with self._lock:
            held = dict(self._held)
        lost, over = self.store.extend(held)
        with self._lock:
            for job_id in over:
                # Its acknowledgement got lost with a connection; there is nothing to renew.
                if self._held.get(job_id) == held[job_id]:
                    del self._held[job_id]
                self._done.discard(f"{held[job_id]}:{job_id}")
        for job_id in lost:
            with self._lock:
                if self._held.get(job_id) != held[job_id]:
                    continue  # given back, or taken again, meanwhile
                del self._held[job_id]
            log.warning("The lease of job %s is lost; another worker runs it.", job_id)
            if self.on_lost is not None:
                self.on_lost(job_id, held[job_id])


def refused(job_id: str) -> None:
    """Say that what came of a job was not stored, because its lease had been lost."""
    log.warning("Job %s is another worker's by now; what came of it here is refused.", job_id)


_instances: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_instances):
        if engine.lane is not None:
            engine.lane.disown()
        engine._reset()


os.register_at_fork(after_in_child=_after_fork)
