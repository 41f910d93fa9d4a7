"""A worker in a process that a supervisor forked: what it shares, and what it tells."""

from __future__ import annotations

import copy
import importlib
import os
import platform
import signal
import sys
import threading
import typing as t

import click
from celery import signals
from celery.utils.sysinfo import cpu_budget
from celery.worker import state as worker_state
from kombu.utils.imports import symbol_by_name

from .._store import read_scripts
from .startup import check_server

if t.TYPE_CHECKING:
    from .app import OffloadCelery

__all__ = ["cpus", "preload", "read_options", "serve"]

#: Seconds between two looks at how many jobs were done. A receiver of Celery's signals would
#: count them at once, and would cost every job.
COUNT = 0.25

#: What a worker imports as it starts; imported before the fork, it is in memory once.
MODULES = """
    billiard.pool celery.apps.worker celery.concurrency.thread celery.worker.autoscale
    celery.worker.components celery.worker.consumer
    celery.worker.consumer.delayed_delivery celery.worker.control celery.worker.heartbeat
    celery.worker.loops celery.worker.pidbox celery.worker.strategy encodings.idna
    flask_offload._celery.inspection kombu.asynchronous.hub kombu.pidbox
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
    for part in ("amqp", "backend", "control", "events", "log", "AsyncResult", "Worker"):
        getattr(app, part)
    _ = app.events.Dispatcher
    read_scripts()
    platform.platform()  # for the banner; it starts a program to find out
    check_server(app)
    # No process may talk on a connection of another.
    app.store.connections.close()


def read_options(app: OffloadCelery, arguments: t.Sequence[str]) -> click.Context:
    """Read the options of ``celery worker`` once for all processes.

    Without Celery's main command: that loads all others, and a terminal interface for one of them.

    :raises click.UsageError: They are wrong.
    """
    own = app.user_options
    command = copy.copy(_command("worker").worker)
    command.params = [*command.params, *own.get("worker", ()), *own.get("preload", ())]
    about = _command("base").CLIContext(
        app=app, no_color=bool(os.environ.get("NO_COLOR")), workdir=None
    )
    context: click.Context = command.make_context("worker", list(arguments), obj=about)
    if not context.params["without_gossip"]:
        for part in ("Receiver", "State"):
            getattr(app.events, part)
    return context


def _command(module: str) -> t.Any:
    """A module of Celery's commands, without what they would colour Python code with.

    No worker prints any, and that takes more than a megabyte.
    """
    absent = "pygments" not in sys.modules
    if absent:
        sys.modules["pygments"] = t.cast("t.Any", None)  # as if it were not installed
    try:
        return importlib.import_module(f"celery.bin.{module}")
    finally:
        if absent:
            del sys.modules["pygments"]


def serve(
    options: click.Context,
    name: str,
    *,
    ready: t.Callable[[], None],
    full: t.Callable[[], None],
    max_jobs: int = 0,
) -> int:
    """Run one worker to its end; the exit code.

    :param options: As :func:`read_options` returns them.
    :param name: Of the node.
    :param ready: Called each time it has connected, and takes jobs.
    :param full: Called once ``max_jobs`` have started. It goes on until it gets SIGTERM.
    """
    started = threading.Event()

    def on_ready(**_: t.Any) -> None:
        ready()
        if started.is_set():
            return  # connected again
        started.set()
        # Celery's own handler would run the command line of the supervisor in its place.
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
        if max_jobs:
            threading.Thread(target=_count, args=(max_jobs, full), daemon=True).start()

    signals.worker_ready.connect(on_ready, weak=False)
    options.params["hostname"] = _command("worker").HOSTNAME.convert(name, None, options)
    try:
        with options:
            options.command.invoke(options)
    except click.exceptions.Exit as end:
        return int(end.exit_code or 0)
    return 1  # it always exits


def _count(limit: int, full: t.Callable[[], None]) -> None:
    pause = threading.Event()
    while worker_state.all_total_count[0] < limit:
        pause.wait(COUNT)
    full()
