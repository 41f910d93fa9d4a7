"""A worker in a process that a supervisor forked: what it shares, and what it tells."""

from __future__ import annotations

import gc
import importlib
import signal
import threading
import typing as t

from celery import signals
from celery.utils.sysinfo import cpu_budget
from celery.worker import state as worker_state
from kombu.utils.imports import symbol_by_name

from .startup import check_server

if t.TYPE_CHECKING:
    from .app import OffloadCelery

__all__ = ["cpus", "preload", "serve"]

#: Seconds between two looks at how many jobs were done. A receiver of Celery's signals would
#: count them at once, and would cost every job.
COUNT = 0.25

#: What a worker imports as it starts; imported before the fork, it is in memory once.
MODULES = """
    billiard.pool celery.apps.worker celery.bin.celery celery.concurrency.thread
    celery.events.state celery.worker.autoscale celery.worker.components celery.worker.consumer
    celery.worker.consumer.delayed_delivery celery.worker.control celery.worker.heartbeat
    celery.worker.loops celery.worker.pidbox celery.worker.strategy encodings.idna
    kombu.asynchronous.hub kombu.pidbox
"""


def cpus() -> int:
    """The CPUs that this process may use, by its affinity and the quota of its cgroup."""
    return int(cpu_budget().count)


def preload(app: OffloadCelery) -> None:
    """Get ready, before the forks, what all workers of ``app`` need.

    :raises SystemExit: The server is one on which no worker may start.
    """
    for name in MODULES.split():
        importlib.import_module(name)
    app.loader.import_default_modules()
    app.finalize()
    symbol_by_name(app.conf.worker_consumer)
    for task in app.tasks.values():
        symbol_by_name(task.Request)
    _ = app.connection_for_read().transport_cls
    # Made on first use, and kept.
    for part in ("amqp", "backend", "control", "events", "log", "Worker"):
        getattr(app, part)
    check_server(app)
    # No process may talk on a connection of another.
    app.store.connections.close()
    # A collection in a child would write to each object that it shares with the others.
    gc.freeze()


def serve(
    app: OffloadCelery,
    arguments: t.Sequence[str],
    *,
    ready: t.Callable[[], None],
    full: t.Callable[[], None],
    max_jobs: int = 0,
) -> int:
    """Run one worker to its end; the exit code.

    :param arguments: Those of ``celery worker``.
    :param ready: Called each time it has connected, and takes jobs.
    :param full: Called once ``max_jobs`` have started. It goes on until it gets SIGTERM.
    """
    workers: list[t.Any] = []
    started = threading.Event()

    def on_init(instance: t.Any, **_: t.Any) -> None:
        workers.append(instance)

    def on_ready(**_: t.Any) -> None:
        ready()
        if started.is_set():
            return  # connected again
        started.set()
        # Celery's own handler would run the command line of the supervisor in its place.
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
        if max_jobs:
            threading.Thread(target=_count, args=(max_jobs, full), daemon=True).start()

    signals.celeryd_init.connect(on_init, weak=False)
    signals.worker_ready.connect(on_ready, weak=False)
    app.worker_main(["worker", *arguments])
    return max((int(worker.exitcode or 0) for worker in workers), default=1)


def _count(limit: int, full: t.Callable[[], None]) -> None:
    pause = threading.Event()
    while worker_state.all_total_count[0] < limit:
        pause.wait(COUNT)
    full()
