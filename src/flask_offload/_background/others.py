"""What other extensions know of a request: the user, the locale, a checked CSRF token.

None of them is needed; each is asked where the app uses it.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import typing as t

from flask import current_app, g, request

__all__ = ["capture", "locale", "restored"]


def locale() -> str:
    """The locale of the request by Flask-Babel; empty where the app does not use it."""
    if "babel" not in current_app.extensions:
        return ""
    return str(importlib.import_module("flask_babel").get_locale() or "")


def capture() -> dict[str, t.Any]:
    """In the web request: what :func:`restored` needs."""
    return {"user": _user(), "locale": locale(), "csrf_valid": _csrf_valid()}


@contextlib.contextmanager
def restored(data: t.Mapping[str, t.Any]) -> t.Iterator[None]:
    """In the worker, inside the rebuilt request."""
    if data["csrf_valid"]:
        g.csrf_valid = True  # where Flask-WTF notes it, and its forms look for it
    if data["user"] is not None:
        _log_in(data["user"])
    with contextlib.ExitStack() as stack:
        if data["locale"]:
            babel = importlib.import_module("flask_babel")
            stack.enter_context(babel.force_locale(data["locale"]))
        yield


def _user() -> str | None:
    """The id of Flask-Login's user, empty for a visitor; None where the app has no users."""
    if not hasattr(current_app, "login_manager"):
        return None
    user = importlib.import_module("flask_login").current_user
    return str(user.get_id()) if user.is_authenticated else ""


def _log_in(user_id: str) -> None:
    # Not by the session: a user may have come with a token in a header, which does not travel, and
    # Flask-Login itself would write to it.
    manager: t.Any = current_app.login_manager  # type: ignore[attr-defined]
    if not user_id:
        g._login_user = manager.anonymous_user()
    elif manager._user_callback is not None:
        g._login_user = manager._user_callback(user_id) or manager.anonymous_user()


def _csrf_valid() -> bool:
    """Whether the token of the form was checked here, or passes the check now: when the view runs
    it may be too old."""
    csrf: t.Any = sys.modules.get("flask_wtf.csrf")
    enabled = current_app.secret_key and current_app.config.get("WTF_CSRF_ENABLED", True)
    if csrf is None or not enabled:
        return False
    # A form on the page that the view makes needs a token, which the session must know by then.
    csrf.generate_csrf()
    if g.get("csrf_valid", False):
        return True
    token = request.form.get(current_app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token"))
    try:
        csrf.validate_csrf(token)
    except csrf.ValidationError:
        return False
    return True
