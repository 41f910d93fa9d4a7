"""Pages of ours: templates, static files, and the headers that fence them in."""

from __future__ import annotations

import hashlib
import typing as t
from functools import cache
from importlib.resources import files

from flask import Response, current_app, render_template, send_file, url_for
from werkzeug.exceptions import NotFound

from . import reading, texts

__all__ = ["answer", "asset", "asset_url", "fence", "page", "render", "template_helpers"]

ASSETS = {
    "actions.js": "text/javascript",
    "job.css": "text/css",
    "list.css": "text/css",
    "live.js": "text/javascript",
    "log.js": "text/javascript",
    "nodes.js": "text/javascript",
    "offload.js": "text/javascript",
    "page.css": "text/css",
    "shared.css": "text/css",
    "times.js": "text/javascript",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "frame-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)


def page(template: str, status: int = 200, **context: t.Any) -> Response:
    """Render a template of ours, fenced in."""
    return answer(render(template, **context), status)


def render(template: str, **context: t.Any) -> str:
    """A template of ours, or of the app's in its place."""
    return render_template(f"offload/{template}", **template_helpers(), **context)


def answer(html: str, status: int = 200) -> Response:
    """A page, fenced in."""
    # A job may write what is no text (half a surrogate pair); the page shows a question mark.
    response = Response(html.encode("utf-8", "replace"), status, mimetype="text/html")
    return fence(response)


def template_helpers() -> dict[str, t.Any]:
    """What our templates need to find words."""
    return {
        "asset_url": asset_url,
        "iso": reading.iso,
        "ago": reading.ago,
        "language": texts.texts().language,
        # By these names, also where the app has others for Jinja's own.
        "_": texts.gettext,
        "ngettext": texts.ngettext,
        "script_texts": script_texts,
    }


def script_texts() -> dict[str, str]:
    """What our script says by itself: times, which it alone knows, and answers to a press."""
    return {
        **reading.patterns(),
        "copied": texts.gettext("Copied"),
        "denied": texts.gettext("This browser does not allow notifications here."),
        "notified": texts.gettext("You will be notified. Keep this tab open."),
        "found": texts.gettext("%(count)s of %(total)s lines"),
        "paused": texts.gettext("Follow"),
        "followed": texts.gettext("Pause"),
    }


def fence(response: Response) -> Response:
    """Add the headers that all our answers carry, where there is none of its own."""
    headers = response.headers
    headers.setdefault("Content-Security-Policy", POLICY)
    # The address of a page may carry the key of a job.
    headers.setdefault("Referrer-Policy", "same-origin")
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    return response


@cache
def _version() -> str:
    """The state of all static files; one for all, as the scripts import each other."""
    digest = hashlib.sha256()
    for name in sorted(ASSETS):
        digest.update((files("flask_offload._web") / "static" / name).read_bytes())
    return digest.hexdigest()[:12]


def asset_url(name: str) -> str:
    """The address of a static file; it changes when one of them does."""
    return url_for("offload.asset", version=_version(), name=name)


def asset(version: str, name: str) -> Response:
    """A static file."""
    if name not in ASSETS:
        raise NotFound
    # While versions of the app are rolled over, a page of the other one may ask: serve it what
    # there is, but let nobody keep that under the wrong version.
    current = version == _version() and not current_app.debug
    response = send_file(
        str(files("flask_offload._web") / "static" / name),
        ASSETS[name],
        etag=_version(),
        max_age=31_536_000 if current else 0,
    )
    if current:
        response.cache_control.public = True
        response.cache_control.immutable = True
    return response
