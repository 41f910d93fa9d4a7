"""What is ours in Celery's worker: presence, housekeeping, a shutdown with an end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
import typing as t
from contextlib import suppress

from celery import bootsteps, signals
from celery.worker import state as worker_state

from .._current import JobLogHandler, MaskSecrets
from .._store import StoreUnavailable, WorkerInfo
from . import interrupt
from .delayed import Publisher
from .handover import not_to_start
from .startup import check_server
from .tracing import attempt, fence

if t.TYPE_CHECKING:
    from .app import OffloadCelery

__all__ = ["install", "set_up_logging"]

log = logging.getLogger("flask_offload")

BEAT = 3.0
#: A worker that was silent for this long counts as gone.
LIFETIME = 10.0


def install(app: OffloadCelery) -> None:
    """Add our steps to every worker of ``app``."""
    app.steps["worker"].add(Presence)
    app.steps["worker"].add(Grace)
    app.steps["worker"].add(Publisher)


def set_up_logging() -> None:
    """Have what a job prints and logs in its log, without secrets."""
    printed, traced = logging.getLogger("celery.redirected"), logging.getLogger("celery.app.trace")
    if not any(isinstance(handler, JobLogHandler) for handler in printed.handlers):
        printed.addHandler(JobLogHandler())
        for logger in (printed, traced):
            logger.addFilter(MaskSecrets())


def _stop_lost(job_id: str, token: int) -> None:
    """Stop a job whose lease is lost: another worker runs it, and what it does here is in vain."""
    for request in list(worker_state.active_requests):
        # The new holder of the lease may be this worker, too.
        if request.id != job_id or fence(request.request_dict) != token:
            continue
        if request.worker_pid in (None, os.getpid()):
            # In a thread; its result is refused in any case.
            interrupt.stop(job_id, token, interrupt.LeaseLost)
        else:
            # A child of the prefork pool, which the pool replaces.
            with suppress(ProcessLookupError):
                os.kill(request.worker_pid, signal.SIGKILL)


class Presence(bootsteps.StartStopStep):  # type: ignore[misc]
    """Says that the worker is there, and removes what has expired."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: t.Any, **options: t.Any) -> None:
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        # Node names may be used twice; the process makes it one of a kind.
        worker.app.worker_name = f"{worker.hostname}/{os.getpid()}"
        engine = worker.app.engine
        if engine is not None:
            engine.worker, engine.in_worker = worker.app.worker_name, True
            engine.on_lost = _stop_lost
        set_up_logging()
        self._checked = check_server(worker.app)

    def register_with_event_loop(self, worker: t.Any, hub: t.Any) -> None:
        # Celery looks for dead children every five seconds, and twice before it believes them.
        maintain = getattr(getattr(worker.pool, "_pool", None), "maintain_pool", None)
        if maintain is not None:
            hub.call_repeatedly(1.0, maintain)

    def start(self, worker: t.Any) -> None:
        self._beat(worker, self._info(worker))
        self._thread = threading.Thread(
            target=self._run, args=(worker,), name="offload-presence", daemon=True
        )
        self._thread.start()

    def stop(self, worker: t.Any) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(BEAT)
        with suppress(StoreUnavailable):
            worker.app.store.beat(WorkerInfo(worker.app.worker_name), 0)

    terminate = stop

    def _run(self, worker: t.Any) -> None:
        info = self._info(worker)
        while not self._stopping.wait(BEAT):
            self._beat(worker, info)
            self._tidy(worker.app)
            self._check(worker.app)

    def _check(self, app: OffloadCelery) -> None:
        """Once a server that was away at the start is there."""
        try:
            self._checked = self._checked or check_server(app)
        except SystemExit as error:
            log.critical("%s", error)
            self._checked = True
            os.kill(os.getpid(), signal.SIGTERM)

    def _beat(self, worker: t.Any, info: WorkerInfo) -> None:
        try:
            worker.app.store.beat(info, LIFETIME)
        except StoreUnavailable as error:
            log.warning("The worker cannot reach the records: %s", error)

    def _tidy(self, app: OffloadCelery) -> None:
        try:
            app.store.settle()
            for job_id in app.store.prune_for(BEAT / 3):
                app.files.remove(job_id)
        except StoreUnavailable:
            pass  # The next beat says so, and the next round tidies.
        except OSError as error:
            log.warning("The files of an expired job could not be removed: %s", error)

    def _info(self, worker: t.Any) -> WorkerInfo:
        return WorkerInfo(
            name=worker.app.worker_name,
            pid=os.getpid(),
            queues=tuple(worker.app.amqp.queues.consume_from),
            pool=worker.pool_cls.__module__.rpartition(".")[2],
            concurrency=int(worker.concurrency),
            started_at=time.time(),
            host=socket.gethostname(),
            tasks=tuple(sorted(n for n in worker.app.tasks if not n.startswith("celery."))),
        )


class Grace(bootsteps.StartStopStep):  # type: ignore[misc]
    """Ends a warm shutdown that Celery itself would let last as long as the longest job.

    After ``OFFLOAD_GRACE`` seconds the jobs that still run go back to the broker, and the process
    exits.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: t.Any, **options: t.Any) -> None:
        self._worker = worker
        self._timer: threading.Timer | None = None
        # A receiver that is a bound method of a step: the step lives as long as its worker.
        signals.worker_shutting_down.connect(self._begin)

    def stop(self, worker: t.Any) -> None:
        # The consumer has been stopped before; the pool, which waits for its jobs, is next.
        self._begin()
        engine = worker.app.engine
        if engine is None:
            return
        engine.stopping = True
        if engine.lane is not None:
            engine.lane.leave()
        for tag in not_to_start():
            with suppress(StoreUnavailable):
                engine.release(tag, forgive=True)

    def _begin(self, **_: t.Any) -> None:
        if self._timer is None:
            self._timer = threading.Timer(self._worker.app.settings.grace, self._end)
            self._timer.daemon = True
            self._timer.start()

    def _end(self) -> None:
        worker = self._worker
        running = [r for r in worker_state.reserved_requests if not r.acknowledged]
        log.warning(
            "Giving back %d jobs after a grace of %g s.", len(running), worker.app.settings.grace
        )
        # First the processes, so that nobody finishes a job that another worker is given.
        for process in list(getattr(getattr(worker.pool, "_pool", None), "_pool", None) or ()):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        if worker.app.engine is not None:
            worker.app.engine.commits.flush(1)
            with suppress(StoreUnavailable):
                worker.app.engine.release_all()
            running = []
        # Then the records, while nobody else can have the messages.
        with suppress(StoreUnavailable):
            for request in running:
                worker.app.store.requeue(request.id, attempt(request.request_dict), forgive=True)
        # Last the messages: at the end of its connection the broker has back all that was not
        # acknowledged. The event loop that would carry a reject does not turn any more.
        # RabbitMQ sees that end with the process; to close it here would wait for an answer that
        # another thread may read.
        if worker.consumer.connection.transport.driver_type != "amqp":
            try:
                worker.consumer.connection.close()
            except Exception:
                log.exception("The messages could not be given back; they will be missed soon.")
        with suppress(StoreUnavailable):
            worker.app.store.beat(WorkerInfo(worker.app.worker_name), 0)
        logging.shutdown()
        sys.stdout.flush()
        # Threads that run user code cannot be stopped otherwise.
        os._exit(0)
