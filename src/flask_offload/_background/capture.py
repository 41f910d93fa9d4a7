"""A request as data: what travels from the web process to the worker."""

from __future__ import annotations

import hashlib
import json
import typing as t

from flask import current_app, request, session
from flask.json.tag import TaggedJSONSerializer

from ..exceptions import BackgroundError, PayloadTooLarge
from . import others

if t.TYPE_CHECKING:
    from .._celery import OffloadCelery

__all__ = ["Captured", "capture"]

#: Of the environment of WSGI.
ENVIRON = (
    "REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "RAW_URI",
    "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "REMOTE_ADDR", "REMOTE_PORT", "REMOTE_USER",
    "CONTENT_TYPE", "CONTENT_LENGTH", "wsgi.url_scheme",
)  # fmt: skip
#: No cookies, nothing that logs in, nothing that asks for a part or for a newer version.
HEADERS = (
    "Accept", "Accept-Language", "Forwarded", "Host", "HX-Boosted", "HX-Current-URL", "HX-Request",
    "HX-Target", "HX-Trigger", "HX-Trigger-Name", "Origin", "Referer", "Traceparent", "User-Agent",
    "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix",
    "X-Forwarded-Proto", "X-Real-IP", "X-Request-ID", "X-Requested-With",
)  # fmt: skip
MULTIPART = "multipart/form-data"
FORMS = frozenset({MULTIPART, "application/x-www-form-urlencoded"})
#: Characters of a body that travel in the message; what is larger goes to a file.
INLINE = 32_768

_tagged = TaggedJSONSerializer()


class Captured(t.NamedTuple):
    """
    :param data: The request, for :func:`.rebuild.rebuilt`.
    :param digest: Of what was asked for: method, address, body.
    :param kept: Whether some of it is in the files of the job.
    """

    data: dict[str, t.Any]
    digest: str
    kept: bool


class _Files:
    """The files of a job that is not there yet."""

    def __init__(self, celery: OffloadCelery, job_id: str) -> None:
        self._celery = celery
        self._job_id = job_id
        self.used = False

    def keep(self, name: str, data: bytes | t.IO[bytes], limit: int) -> tuple[int, str]:
        if not self.used:
            # Before anything is there: this process may die before the job is.
            self._celery.store.announce_files(self._job_id)
            self.used = True
        return self._celery.files.keep(self._job_id, name, data, limit)


def capture(celery: OffloadCelery, job_id: str, given: dict[str, t.Any]) -> Captured:
    """The request at hand. What is large is kept in the files of the job.

    :param given: The arguments that the view was called with.
    :raises PayloadTooLarge: The body is larger than ``OFFLOAD_MAX_REQUEST``.
    """
    files = _Files(celery, job_id)
    body, seen = _body(files, celery.settings.max_request)
    wanted = {name.title() for name in (*HEADERS, *celery.settings.request_headers)}
    carried = others.capture()
    data = {
        "job": job_id,
        "environ": {key: request.environ[key] for key in ENVIRON if key in request.environ},
        "headers": [(name, value) for name, value in request.headers if name.title() in wanted],
        "body": body,
        "view_args": _changed(given),
        # After the others: one of them may have put its token there.
        "session": _session(),
        **carried,
    }
    asked = [request.method, request.url, seen]
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    return Captured(data, digest, files.used)


def _body(files: _Files, limit: int) -> tuple[dict[str, t.Any], t.Any]:
    """The body as data, and what tells it from another one."""
    if (request.content_length or 0) > limit:
        raise PayloadTooLarge(
            f"The request has {request.content_length:,} bytes. "
            f"OFFLOAD_MAX_REQUEST allows {limit:,}."
        )
    parsed = "form" in vars(request)
    if request.max_content_length is None or request.max_content_length > limit:
        # For a body whose length nobody told.
        request.max_content_length = limit
    # The form is read from this, where nobody has read it yet; the view may want either.
    raw = b"" if request.mimetype == MULTIPART else request.get_data()
    if request.content_length is None and len(raw) >= limit:
        # Of a body whose length nobody told, no more than this is read.
        raise PayloadTooLarge(f"The request has more bytes than OFFLOAD_MAX_REQUEST: {limit:,}.")
    form = list(request.form.items(multi=True)) if request.mimetype in FORMS else []
    # A form that was loaded again has another token, and asks for the same.
    token = current_app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token")
    seen: list[t.Any] = [[name, value] for name, value in form if name != token]
    if raw or not (form or request.files):
        raw = raw or request.get_data()
        seen = seen or [hashlib.sha256(raw).hexdigest()]
        return {"kind": "raw", **_text(raw, files, limit)}, seen
    uploads = []
    for number, (field, upload) in enumerate(request.files.items(multi=True)):
        upload.stream.seek(0)  # a hook may have looked into it
        size, digest = files.keep(f"upload-{number}", upload.stream, limit)
        uploads.append({"field": field, "name": upload.filename, "headers": list(upload.headers)})
        seen.append([field, upload.filename, size, digest])
    text = _text(json.dumps(form).encode(), files, limit)
    return {"kind": "form", "parsed": parsed, "uploads": uploads, **text}, seen


def _text(data: bytes, files: _Files, limit: int) -> dict[str, str]:
    if len(data) <= INLINE:
        return {"text": data.decode("latin-1")}
    # JSON of a form is longer than the form, which is within the limit.
    files.keep("body", data, limit * 8)
    return {"file": "body"}


def _session() -> dict[str, t.Any]:
    """What the view may read of the session."""
    kept: dict[str, t.Any] = {}
    left_out = []
    for key, value in session.items():
        if key == "_flashes":
            continue  # They wait in the browser for the page that shows them.
        try:
            kept[key] = _tagged.dumps(value)
        except (TypeError, ValueError):
            left_out.append(key)
    return {"values": kept, "left_out": left_out}


def _changed(given: dict[str, t.Any]) -> dict[str, t.Any]:
    """What the decorators above made of the arguments in the URL."""
    url = request.view_args or {}
    changed = {name: value for name, value in given.items() if url.get(name, given) is not value}
    for name, value in changed.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise BackgroundError(
                f"The view {request.endpoint!r} gets {name!r} from a decorator above "
                "@offload.background, and it is not JSON, so it cannot travel to the worker. Pass "
                "an id, and load the object in the view."
            ) from None
    return {"set": changed, "drop": [name for name in url if name not in given]}
