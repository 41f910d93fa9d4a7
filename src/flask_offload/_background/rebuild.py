"""Data as a request: the context that a background view runs in."""

from __future__ import annotations

import contextlib
import io
import json
import typing as t

from flask.ctx import RequestContext
from werkzeug.datastructures import FileStorage, Headers, ImmutableMultiDict

from .._current import running_job
from ..exceptions import BackgroundError
from . import others
from .session import ReadOnlySession

if t.TYPE_CHECKING:
    from flask import Flask

    from .._store import FileStore

__all__ = ["MINTED", "rebuilt"]

#: Where a request keeps the browser id that was made for it. In the environment, as ``g`` is
#: another one in an app context that the view pushes itself.
MINTED = "flask_offload.minted"


@contextlib.contextmanager
def rebuilt(app: Flask, data: dict[str, t.Any], files: FileStore) -> t.Iterator[ReadOnlySession]:
    """The context of the request that :func:`.capture.capture` saw; gives its session.

    :raises BackgroundError: Its body is no longer kept.
    """
    session = ReadOnlySession(data["session"])
    with contextlib.ExitStack() as opened:
        context = RequestContext(app, _environ(data), session=session)
        _fill(context.request, data, files, opened)
        with context, others.restored(data):
            yield session


def _environ(data: dict[str, t.Any]) -> dict[str, t.Any]:
    environ = {
        **data["environ"],
        "wsgi.version": (1, 0),
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    job = running_job()
    for owner in job.job.owners if job is not None else ():
        if owner.startswith("c:"):
            # As in the first request of a browser, whose cookie is not there.
            environ[MINTED] = owner[2:]
    for name, value in data["headers"]:
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    return environ


def _fill(
    request: t.Any, data: dict[str, t.Any], files: FileStore, opened: contextlib.ExitStack
) -> None:
    """Give the request its body."""
    body = data["body"]

    def kept(name: str) -> t.BinaryIO:
        try:
            return opened.enter_context(files.kept(data["job"], name))
        except FileNotFoundError:
            raise BackgroundError(
                "The body of the request is no longer kept: the job that it came with has expired."
            ) from None

    text = kept(body["file"]).read() if "file" in body else body["text"].encode("latin-1")
    environ = request.environ
    raw = text if body["kind"] == "raw" else b""
    if body["kind"] == "raw" or body["parsed"]:
        # Where request.data, json and form look first. Of a form that was read, nothing is left.
        environ |= {"wsgi.input": io.BytesIO(raw), "CONTENT_LENGTH": str(len(raw))}
        request.max_content_length = len(raw)
        request.get_data()
        del request.stream
        environ["CONTENT_LENGTH"] = data["environ"].get("CONTENT_LENGTH", str(len(raw)))
    if body["kind"] == "form":
        form = request.parameter_storage_class([tuple(pair) for pair in json.loads(text)])
        uploads = [
            (
                upload["field"],
                FileStorage(
                    kept(f"upload-{number}"),
                    upload["name"],
                    upload["field"],
                    headers=Headers([tuple(header) for header in upload["headers"]]),
                ),
            )
            for number, upload in enumerate(body["uploads"])
        ]
        request.form, request.files = form, ImmutableMultiDict(uploads)
    # From here on nobody reads the body as it came in.
    environ["wsgi.input"], environ["wsgi.input_terminated"] = _NoStream(), True


class _NoStream(io.RawIOBase):
    """In place of the stream of a request, which has ended."""

    def readable(self) -> bool:
        return True

    def _refuse(self, *_: t.Any) -> t.NoReturn:
        raise BackgroundError(
            "A background view cannot read request.stream: the request has ended. Use request.form "
            "and request.files, or request.data for other bodies; or read the stream in a plain "
            "view, and pass what it needs to a task."
        )

    read = readall = readinto = readline = readlines = __next__ = _refuse
