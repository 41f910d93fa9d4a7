"""``flask offload worker --processes P --threads T``"""

from __future__ import annotations

import gc
import os
import threading
import typing as t

import click

from .._celery.supervised import cpus, preload, read_options, serve
from .supervision.arrivals import SIGNALS
from .supervision.fork import Child
from .supervision.process import FULL, READY, memory
from .supervision.reload import given_place, is_trial, own_command
from .supervision.supervisor import Supervisor
from .worker import with_level

if t.TYPE_CHECKING:
    from .._extension import OffloadState

__all__ = ["supervise"]

#: Options of "celery worker" that do harm in several processes, or mean nothing, and what does
#: what they are wanted for.
REFUSED = {
    ("-P", "--pool"): "each process runs threads; leave it away",
    ("-c", "--concurrency"): "use --threads, or --processes auto",
    ("", "--autoscale"): "use --processes and --threads",
    ("", "--max-tasks-per-child"): "use --max-jobs",
    ("", "--max-memory-per-child"): "use --max-memory",
    ("-B", "--beat"): "each process would send every periodic task; run celery beat beside it",
    ("", "--purge"): "each new process would purge the queues; run celery purge before",
    ("", "--discard"): "each new process would purge the queues; run celery purge before",
    ("-D", "--detach"): "use your system's service manager",
    ("", "--pidfile"): "the processes come and go; use your system's service manager",
}


def supervise(
    state: OffloadState,
    arguments: list[str],
    *,
    processes: str,
    threads: str,
    max_jobs: str | None,
    max_memory: str | None,
) -> t.NoReturn:
    """Run the worker processes until a signal ends them.

    :param arguments: What ``celery worker`` gets besides.
    :raises SystemExit: Always, with the exit code; also in each process.
    """
    _check(arguments)
    count = cpus() if processes.strip().lower() == "auto" else _number("--processes", processes)
    width = _number("--threads", threads)
    jobs = 0 if max_jobs is None else _number("--max-jobs", max_jobs)
    limit = 0 if max_memory is None else _number("--max-memory", max_memory)
    name, rest = _node_name(arguments)
    # Of the one kind of pool in which cancel, time limits and heartbeat are alike for any number
    # of threads: with one, a solo pool would not answer while its job runs.
    common = [*with_level(rest), "--pool=threads", f"--concurrency={width}"]

    def main(number: int, tell: t.Callable[[bytes], None]) -> int:
        return serve(
            options,
            name.format(number),
            ready=lambda: tell(READY),
            full=lambda: tell(FULL),
            max_jobs=jobs,
        )

    preload(state.celery)
    options = read_options(state.celery, common)
    if is_trial():
        raise SystemExit(0)
    # All that the app has loaded is in the resident memory of each process.
    if limit and limit <= (used := memory(os.getpid())):
        raise click.UsageError(
            f"--max-memory must be more than the app itself takes, {used:.0f} MB, not {limit}."
        )
    if strays := [thread.name for thread in threading.enumerate()][1:]:
        _say(
            f"The app has started threads ({', '.join(strays)}) while it was loaded. They do not "
            "exist in the worker processes: start them in a task, or at Celery's worker_init."
        )
    settle()
    if (place := given_place()) is not None:
        number, pipe, parent = place
        child = Child(parent, pipe, SIGNALS)
        child.begin([])
        raise SystemExit(main(number, child.tell))
    supervisor = Supervisor(
        count,
        main,
        command=own_command(),
        # Not where processes are replaced all the time: one that is no fork shares no memory.
        sleeps=not (jobs or limit),
        grace=state.settings.grace,
        max_memory=limit,
        say=_say,
    )
    raise SystemExit(supervisor.run())


def settle() -> None:
    """Set what is in memory aside from garbage collection, before the forks.

    A collection in a process would write to each object that it shares with the others.
    """
    gc.collect()
    gc.freeze()
    # Full collections wait until there is a quarter more than at the last one; by what is left
    # now, and not by the app, so that a process never has much garbage.
    gc.collect()


def _say(line: str) -> None:
    click.echo(f" * {line}", err=True)


def _number(option: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        kind = "a whole number of MB, at least 1" if option == "--max-memory" else "at least 1"
        kind += " (or auto)" if option == "--processes" else ""
        raise click.UsageError(f"{option} must be {kind}, not {text!r}.")
    return number


def _check(arguments: list[str]) -> None:
    for argument in arguments:
        for (short, long), instead in REFUSED.items():
            is_short = short and argument.startswith(short) and not argument.startswith("--")
            if is_short or argument.partition("=")[0] == long:
                raise click.UsageError(
                    f"{short and f'{short}/'}{long} does not go with --processes or --threads: "
                    f"{instead}."
                )


def _node_name(arguments: list[str]) -> tuple[str, list[str]]:
    """The name of a node with a place for its number, and the arguments without ``-n``."""
    name, rest = "celery@%h", []
    left = iter(arguments)
    for argument in left:
        option, _, value = argument.partition("=")
        if option == "--hostname" and value:
            name = value
        elif argument in ("-n", "--hostname"):
            name = next(left, name)
        elif argument.startswith("-n"):
            name = argument.removeprefix("-n")
        else:
            rest.append(argument)
    # As Celery reads it, a name without @ is that of the host.
    node, at, host = name.rpartition("@")
    node, host = (node if at else "celery").replace("{", "{{").replace("}", "}}"), host or "%h"
    return f"{node}-{{}}@{host}", rest
