"""Celery's current app follows Flask's app context, so that a shared task is the right app's."""

from __future__ import annotations

import typing as t
import weakref

from celery import _state
from flask import Flask, appcontext_popped, appcontext_pushed

if t.TYPE_CHECKING:
    from .app import OffloadCelery

__all__ = ["follow"]

# The Celery app holds its Flask app, so a strong value here would keep both for ever.
_apps: weakref.WeakKeyDictionary[Flask, weakref.ref[OffloadCelery]] = weakref.WeakKeyDictionary()


def follow(flask_app: Flask, celery: OffloadCelery) -> None:
    """Make ``celery`` the current app of the thread while a context of ``flask_app`` is pushed."""
    _apps[flask_app] = weakref.ref(celery)


@appcontext_pushed.connect
def _pushed(flask_app: Flask, **_: t.Any) -> None:
    reference = _apps.get(flask_app)
    celery = reference() if reference else None
    if celery is not None:
        stack = _stack()
        stack.append(_state._tls.current_app)
        _state._set_current_app(celery)


@appcontext_popped.connect
def _popped(flask_app: Flask, **_: t.Any) -> None:
    if flask_app in _apps and (stack := _stack()):
        _state._set_current_app(stack.pop())


def _stack() -> list[t.Any]:
    # Beside Celery's own: it is a global of the thread (of the greenlet, once patched).
    try:
        return t.cast("list[t.Any]", _state._tls.offload_stack)
    except AttributeError:
        stack: list[t.Any] = []
        _state._tls.offload_stack = stack
        return stack
