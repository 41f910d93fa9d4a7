"""Processes of a prefork pool that are not forked, as on macOS: each imports the app again.

Celery sends them the app that they shall work for as a pickle. What travels is where to find it.
"""

from __future__ import annotations

import pickle
import sys
import typing as t

from celery import signals
from celery.utils.imports import import_from_cwd
from flask.cli import ScriptInfo

from .worker import set_up_logging

if t.TYPE_CHECKING:
    from .app import OffloadCelery

__all__ = ["Place", "load", "place_of"]

#: A module and the name of the app there; or nothing, and what Flask's ``--app`` said.
Place = tuple[str, str | None]
#: What holds apps that are others' to make.
OTHERS = {"celery", "flask", __name__.partition(".")[0]}


def place_of(app: OffloadCelery) -> Place:
    """Where another process finds an app.

    :raises PicklingError: It was made by code that only this process knows.
    """
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in OTHERS:
            continue
        for key, value in list(getattr(module, "__dict__", {}).items()):
            if value is app or value is app.flask_app:
                return name, key
    if app.command is not None and app.command.load_app() is app.flask_app:
        return "", app.command.app_import_path
    raise pickle.PicklingError(
        f"The app {app.main!r} is no global of any module, so that a process of the pool that is "
        "not forked cannot find it. Make it one, or choose --pool threads."
    )


def load(place: Place, worker_name: str) -> OffloadCelery:
    """The app of that place, for the process of a worker."""
    module, name = place
    if module:
        found = getattr(import_from_cwd(module), t.cast("str", name))
    else:
        found = ScriptInfo(app_import_path=name).load_app()
    extensions = getattr(found, "extensions", None)
    celery = t.cast("OffloadCelery", extensions["offload"].celery if extensions else found)
    celery.worker_name = worker_name
    signals.worker_process_init.connect(_ready, weak=False)
    return celery


def _ready(**_: t.Any) -> None:
    # Celery has set up its own by now.
    set_up_logging()
