"""The response of a background view: kept with its record, served to whom the job admits."""

from __future__ import annotations

import base64
import logging
import tempfile
import typing as t
from urllib.parse import urljoin, urlsplit

from flask import Flask, Response, current_app, flash, request, session
from werkzeug.urls import iri_to_uri
from werkzeug.wsgi import wrap_file

from .._current import running_job
from ..exceptions import BackgroundError, PayloadTooLarge

if t.TYPE_CHECKING:
    from .._celery import OffloadCelery
    from .._control import Control

__all__ = ["keep", "serve"]

log = logging.getLogger("flask_offload")

#: Bytes of a body that are kept in the record; what is larger goes to a file.
INLINE = 65_536
#: Of one connection, or of one moment; or done once, as cookies are.
DROPPED = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
    "trailers", "transfer-encoding", "upgrade", "content-length", "date", "server", "set-cookie",
    "set-cookie2", "clear-site-data", "x-sendfile",
})  # fmt: skip
#: In the session: the job whose messages were flashed last.
FLASHED = "_offload_flashed"


def keep(celery: OffloadCelery, response: Response, flashes: list[t.Any]) -> None:
    """Keep a response with the job that runs here.

    :raises BackgroundError: It streams, or is larger than ``OFFLOAD_MAX_RESPONSE``.
    """
    job = running_job()
    if job is None:
        return
    headers = _headers(response)
    body, size = _body(celery, job.id, job.fence, response)
    kept = {
        "status": response.status,
        "headers": headers,
        "flashes": flashes,
        "blueprints": list(request.blueprints),
        **body,
    }
    shown = {"status": response.status_code, "size": size}
    celery.store.patiently(lambda: celery.store.keep_response(job.id, shown, kept, fence=job.fence))


def _headers(response: Response) -> list[tuple[str, str]]:
    named = ",".join(response.headers.getlist("Connection")).lower().split(",")
    dropped = DROPPED | {name.strip() for name in named}
    if "Set-Cookie" in response.headers:
        log.warning(
            "The background view %s set a cookie, which is not kept: cookies are for one answer. "
            "Set it in a decorator above @offload.background.",
            request.endpoint,
        )
    if response.location:
        # From where it is served, a relative one would lead elsewhere.
        base = urlsplit(iri_to_uri(request.base_url)).path
        response.location = urljoin(base, response.location)
    return [(name, value) for name, value in response.headers if name.lower() not in dropped]


def _body(
    celery: OffloadCelery, job_id: str, fence: int, response: Response
) -> tuple[dict[str, t.Any], int]:
    limit = celery.settings.max_response
    sent = response.headers.get("X-Sendfile")
    if sent:
        # The web server was to read it, on the machine of the web server.
        with open(sent, "rb") as file:
            return _spooled(celery, job_id, fence, iter(lambda: file.read(INLINE), b""), limit)
    if response.is_streamed:
        if not response.direct_passthrough:
            raise BackgroundError(
                "A background view cannot stream its response: it is kept whole. Return all of it, "
                "use send_file, or tell how far the work is by current_job."
            )
        return _spooled(celery, job_id, fence, response.iter_encoded(), limit)
    data = response.get_data()
    if len(data) > INLINE:
        return _spooled(celery, job_id, fence, iter([data]), limit)
    try:
        return {"text": data.decode()}, len(data)
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}, len(data)


def _spooled(
    celery: OffloadCelery, job_id: str, fence: int, chunks: t.Iterator[bytes], limit: int
) -> tuple[dict[str, t.Any], int]:
    # By the token of the run: another run of the job, after this worker was taken for dead, may
    # be writing too.
    name = f"response-{fence}"
    with tempfile.SpooledTemporaryFile(max_size=1_000_000) as spool:
        for chunk in chunks:
            spool.write(chunk)
            if spool.tell() > limit:
                break
        spool.seek(0)
        try:
            size, _ = celery.files.keep(job_id, name, t.cast("t.IO[bytes]", spool), limit)
        except PayloadTooLarge:
            raise BackgroundError(
                f"The response has more than {limit:,} bytes, which is what OFFLOAD_MAX_RESPONSE "
                "allows. Attach it by current_job.attach, in a task, or raise the setting."
            ) from None
    return {"file": name, "size": size}, size


def serve(control: Control, job_id: str) -> Response | None:
    """The response that was kept for a job, as an answer to the request at hand."""
    kept = control.store.response(job_id)
    if kept is None:
        return None
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    stream = control.files.kept(job_id, kept["file"]) if "file" in kept else None
    if stream is not None:
        body: t.Any = wrap_file(request.environ, stream)
    else:
        body = kept["text"] if "text" in kept else base64.b64decode(kept["base64"])
    response = app.response_class(
        body,
        kept["status"],
        [tuple(header) for header in kept["headers"]],
        direct_passthrough=stream is not None,
    )
    if stream is not None:
        response.call_on_close(stream.close)
        response.content_length = kept["size"]
        if response.status_code == 200:
            response.make_conditional(request, accept_ranges=True, complete_length=kept["size"])
    _flash(job_id, kept["flashes"])
    # Of the view's blueprints; those of the app, and of this request's blueprints, come by Flask.
    for name in kept["blueprints"]:
        if name not in request.blueprints:
            for function in reversed(app.after_request_funcs.get(name, ())):
                response = app.ensure_sync(function)(response)
    # Whoever keeps a copy would show it to others without asking whose it is.
    response.headers["Cache-Control"] = "no-store"
    response.vary.add("Cookie")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    # The address may carry the key of the job.
    response.headers.setdefault("Referrer-Policy", "same-origin")
    return response


def _flash(job_id: str, messages: list[t.Any]) -> None:
    """Flash what the view flashed; once in a browser, however often it is loaded."""
    if not messages or request.method == "HEAD" or session.get(FLASHED) == job_id:
        return
    for category, message in messages:
        flash(message, category)
    session[FLASHED] = job_id
