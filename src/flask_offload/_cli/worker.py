"""``flask offload worker``"""

from __future__ import annotations

import typing as t

import click
from flask import current_app
from flask.cli import with_appcontext

if t.TYPE_CHECKING:
    from .._extension import OffloadState

__all__ = ["state", "worker"]


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
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@with_appcontext
def worker(arguments: tuple[str, ...]) -> None:
    """Start a worker. Takes what "celery worker" takes."""
    celery = state().celery
    given = list(arguments)
    if not any(a.startswith(("-l", "--loglevel")) for a in given):
        given.append("--loglevel=info")
    celery.worker_main(["worker", *given])
