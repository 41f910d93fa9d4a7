"""In the worker: run the view inside its rebuilt request, and keep what it answers."""

from __future__ import annotations

import asyncio
import inspect
import json
import typing as t

from flask import Flask, Response, current_app, request
from flask.globals import request_ctx
from werkzeug.exceptions import HTTPException, InternalServerError

from .._current import running_job
from ..exceptions import BackgroundError, OffloadError, UserError
from .rebuild import rebuilt
from .response import keep

if t.TYPE_CHECKING:
    from .view import View

__all__ = ["RERUN", "FailedResponse", "run"]

#: The mark of the hooks that run again in the worker.
RERUN = "_offload_rerun"
#: Errors that trying again does not mend.
FINAL = (UserError, BackgroundError)


class FailedResponse(OffloadError):
    """A background view answered with a status of 500 or above."""


def run(view: View, http_request: str) -> None:
    """The body of the task of a view."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    celery = app.extensions["offload"].celery
    data = json.loads(http_request)
    with rebuilt(app, data, celery.files) as session:
        response, error = _answer(app, view, data["view_args"])
        if response is not None:
            try:
                if error is None or not _tries_again(view, error):
                    keep(celery, response, session.flashes)
            finally:
                response.close()
        if error is not None:
            raise error


def _answer(
    app: Flask, view: View, changed: dict[str, t.Any]
) -> tuple[Response | None, Exception | None]:
    """What the view answers; and the error, where the job has failed."""
    try:
        response = _response(app, _dispatch(app, view, changed))
        error: Exception | None = None
    except Exception as raised:
        answer, error = _handled(app, view, raised), raised
        if answer is None:
            return None, raised
        response = answer
    for function in request_ctx._after_request_functions:
        # Of after_this_request: they belong to this run of the view, and cannot travel.
        response = app.ensure_sync(function)(response)
    if response.status_code < 500:
        # The app has an answer to this error, as it may have to a missing page or a wrong form.
        return response, None
    return response, error or FailedResponse(f"The view answered {response.status}.")


def _dispatch(app: Flask, view: View, changed: dict[str, t.Any]) -> t.Any:
    if request.routing_exception is not None:
        raise request.routing_exception
    names = (None, *reversed(request.blueprints))
    for name in names:
        for preprocess in app.url_value_preprocessors.get(name, ()):
            preprocess(request.endpoint, request.view_args)
    for name in names:
        for hook in app.before_request_funcs.get(name, ()):
            if getattr(hook, RERUN, False):
                answer = app.ensure_sync(hook)()
                if answer is not None:
                    return answer
    args = {**(request.view_args or {}), **changed["set"]}
    for name in changed["drop"]:
        args.pop(name, None)
    answer = view.function_of(app, request.endpoint)(**args)
    # Not by Flask's ensure_sync, which needs a package more.
    return asyncio.run(answer) if inspect.iscoroutine(answer) else answer


def _handled(app: Flask, view: View, error: Exception) -> Response | None:
    """What the app's own error handlers make of an error; None where there is no such answer."""
    try:
        return _response(app, app.handle_user_exception(error))
    except Exception as unhandled:
        if unhandled is not error:
            raise
    if _tries_again(view, error):
        return None
    failure = InternalServerError(original_exception=error)
    answer = app.handle_http_exception(failure)
    # The plain page of Werkzeug tells less than the page of the job.
    return None if answer is failure else _response(app, answer)


def _tries_again(view: View, error: Exception) -> bool:
    job = running_job()
    return job is not None and job.attempt <= view.retries and not isinstance(error, FINAL)


def _response(app: Flask, answer: t.Any) -> Response:
    if isinstance(answer, HTTPException):
        # As it is called by a server, it would be a stream.
        answer = answer.get_response(request.environ)
    return app.make_response(answer)
