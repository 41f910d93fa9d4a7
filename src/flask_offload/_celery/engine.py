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
import time
import typing as t
import weakref
from datetime import UTC, datetime

from .._store import Delivery, Store, StoreUnavailable
from .intake import Intake
from .message import Message, delivered
from .message import tag as tag_of

if t.TYPE_CHECKING:
    from .._config import Settings

__all__ = ["Engine"]

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
        self.on_lost: t.Callable[[str, int], None] | None = None
        self._reset()
        _instances.add(self)

    def __json__(self) -> str:
        """For the answer to ``inspect stats``, which shows the options of the transport."""
        return self.worker

    def _reset(self) -> None:
        self._held: dict[str, int] = {}
        self._done: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    # -- holding

    def fetch(self, queues: t.Sequence[str], count: int) -> list[tuple[Message, str]]:
        """Take up to ``count`` jobs, as messages with the name of their queue."""
        found = self.store.fetch(self.worker, queues, count)
        with self._lock:
            self._held.update((delivery.job_id, delivery.fence) for delivery in found)
        if found:
            self._start()
        messages = ((self._message(delivery), delivery.queue) for delivery in found)
        return [(message, queue) for message, queue in messages if message is not None]

    def _message(self, delivery: Delivery) -> Message | None:
        try:
            return delivered(delivery)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self.bury(tag_of(delivery), f"The message cannot be read: {error!r}")
            return None

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
                self._done.remove(tag)
                return
        self.store.ack(job_id, fence)

    def release(self, tag: str, *, forgive: bool = False) -> None:
        """Give a job back."""
        job_id, fence = self._drop(tag)
        self.store.release(job_id, fence, forgive=forgive)

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

    def _drop(self, tag: str) -> tuple[str, int]:
        fence, _, job_id = tag.partition(":")
        with self._lock:
            if self._held.get(job_id) == int(fence):
                del self._held[job_id]
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
            time.sleep(pause)
            pause = self.settings.lease / 3
            try:
                self.heartbeat()
            except StoreUnavailable as error:
                log.warning("The leases could not be renewed: %s", error)
                pause = min(pause, RETRY)
            except Exception:
                log.exception("The leases could not be renewed.")

    def heartbeat(self) -> None:
        """Renew the leases, and stop what was lost."""
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


_instances: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_instances):
        engine._reset()


os.register_at_fork(after_in_child=_after_fork)
