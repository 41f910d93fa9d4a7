"""``flask offload worker``"""

from __future__ import annotations

import os
import typing as t

import click
from flask import current_app
from flask.cli import ScriptInfo, with_appcontext

if t.TYPE_CHECKING:
    from .._extension import OffloadState

__all__ = ["state", "worker"]

HELP = """\
Options of flask offload worker (docs/workers.md):

  --processes N|auto  Keep N processes running; auto: one for each CPU.  [1]
  --threads N         Jobs that each runs at a time, in threads.  [1]
  --max-jobs N        Replace a process that has run N jobs.
  --max-memory MB     Replace a process that uses more.

With none of them, it takes what "celery worker" takes:
"""


def state() -> OffloadState:
    """What the extension keeps of the app that the command was started for."""
    try:
        return t.cast("OffloadState", current_app.extensions["offload"])
    except KeyError:
        raise click.ClickException(
            f"The app {current_app.name!r} does not use Flask-Offload.\n"
            "Add Offload(app) to it, or name another app with --app."
        ) from None


@click.command("worker", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.option("--processes")
@click.option("--threads")
@click.option("--max-jobs")
@click.option("--max-memory")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@with_appcontext
def worker(
    arguments: tuple[str, ...],
    processes: str | None,
    threads: str | None,
    max_jobs: str | None,
    max_memory: str | None,
) -> None:
    """Start a worker. Takes what "celery worker" takes."""
    celery = state().celery
    given = list(arguments)
    if "--help" in given:
        click.echo(HELP)
    elif processes is not None or threads is not None:
        if not hasattr(os, "fork"):
            raise click.UsageError(
                "--processes and --threads need a system with fork, such as Linux or macOS. "
                "Here, start this command with --pool threads several times."
            )
        # Here, so that the usual worker does not load it.
        from .processes import supervise

        supervise(
            state(),
            given,
            processes=processes or "1",
            threads=threads or "1",
            max_jobs=max_jobs,
            max_memory=max_memory,
        )
    elif max_jobs is not None or max_memory is not None:
        name = "--max-memory" if max_jobs is None else "--max-jobs"
        raise click.UsageError(f"{name} goes with --processes or --threads; add one of them.")
    celery.command = click.get_current_context().find_object(ScriptInfo)
    raise SystemExit(celery.worker_main(["worker", *with_level(given)]))


def with_level(arguments: list[str]) -> list[str]:
    """Have a worker say what it does, unless asked otherwise."""
    if any(a.startswith(("-l", "--loglevel")) for a in arguments):
        return arguments
    return [*arguments, "--loglevel=info"]
