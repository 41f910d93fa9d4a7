"""``flask offload doctor`` and ``flask offload acl``"""

from __future__ import annotations

import os
import sys
import typing as t

import click
from flask.cli import with_appcontext

from .._store import Fault, Overview, Role, WorkerInfo, acl
from ..exceptions import ServerError
from .worker import state

__all__ = ["doctor", "print_acl"]

ROLES = click.Choice(["web", "worker"])
WIDTH = 80
LABEL = 14


@click.command("doctor")
@click.option("--role", type=ROLES, default="worker", show_default=True, help="Whose rights.")
@with_appcontext
def doctor(role: Role) -> None:
    """Look at the server, the queues and the workers. Exit code 1 if something needs mending."""
    control = state().control
    health = control.health(role)
    faults = list(health.faults)
    _row("Server", health.server)
    _row("On disk", health.persistence)
    _row("When full", health.eviction)
    if not faults:
        try:
            seen, workers = control.overview(), control.workers()
        except ServerError as error:
            raise click.ClickException(str(error)) from error
        _queues(seen)
        _workers(workers)
        faults += _idle(seen, workers)
    if not faults:
        click.echo(_paint("Nothing needs mending.", "green"), color=_colours())
    for fault in faults:
        click.echo("")
        click.echo(_paint(str(fault), "red"), color=_colours())
    sys.exit(1 if faults else 0)


@click.command("acl")
@click.argument("role", type=ROLES)
@with_appcontext
def print_acl(role: Role) -> None:
    """Print the rules that the server's user of a role needs, for ACL SETUSER."""
    store = state().control.store
    click.echo(acl(role, store.keys, store.connections.database))


def _queues(seen: Overview) -> None:
    waits = [(queue.oldest, queue.name) for queue in seen.queues if queue.oldest is not None]
    _row("Waiting", f"{sum(queue.waiting for queue in seen.queues):,}")
    for queue in seen.queues:
        paused = _paint("  paused", "yellow") if queue.paused else ""
        click.echo(f"  {queue.name:<40.40} {queue.waiting:>12,}{paused}", color=_colours())
    _row("Scheduled", f"{seen.scheduled:,}")
    _row("With workers", f"{seen.held:,}")
    if waits:
        seconds, name = max(waits)
        _row("Oldest waits", f"{_duration(seconds)}, in {name}")


def _workers(workers: t.Sequence[WorkerInfo]) -> None:
    _row("Workers", str(len(workers)) if workers else "none is alive")
    for worker in workers:
        pool = f"{worker.pool} x {worker.concurrency}"
        click.echo(f"  {worker.name:<40.40} {pool:<14.14} {','.join(worker.queues):.20}")


def _idle(seen: Overview, workers: t.Sequence[WorkerInfo]) -> list[Fault]:
    """Jobs that wait for nobody."""
    served = {name for worker in workers for name in worker.queues}
    lonely = [queue.name for queue in seen.queues if queue.waiting and queue.name not in served]
    if not lonely:
        return []
    names = ",".join(lonely)
    return [
        Fault(
            f"Jobs wait in {names}, and no worker listens there.",
            "no worker is alive." if not workers else "the workers were started for other queues.",
            f"flask offload worker -Q {names}",
        )
    ]


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _row(label: str, value: str) -> None:
    click.echo(f"{label:<{LABEL}}{value:.{WIDTH - LABEL}}")


def _paint(text: str, colour: str) -> str:
    return click.style(text, fg=colour)


def _colours() -> bool:
    # See no-color.org; click takes the colours out where this is false.
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
