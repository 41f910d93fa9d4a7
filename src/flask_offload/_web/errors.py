"""Our errors as answers: a small page, or JSON."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from flask import Flask, Response, current_app

from ..exceptions import EnqueueError, JobNotFound, PayloadTooLarge, ServerError
from .negotiate import json_response, wants_json
from .pages import page

__all__ = ["CrossSiteError", "register_error_handlers"]

RETRY_AFTER = 5


class CrossSiteError(Exception):
    """A request of an admitted visitor that did not come from a page of ours."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What people read of an error.

    :param hint: What they can do.
    """

    status: int
    title: str
    hint: str


FAULTS: dict[type[Exception], Fault] = {
    EnqueueError: Fault(
        503,
        "This could not be started",
        "Nothing was changed. Wait a few seconds and try again.",
    ),
    ServerError: Fault(
        503,
        "Jobs cannot be shown right now",
        "What is running goes on. Wait a few seconds and reload this page.",
    ),
    PayloadTooLarge: Fault(
        413, "This is too large", "Nothing was started. Try again with less at once."
    ),
    JobNotFound: Fault(
        404,
        "This job cannot be found",
        "It is no longer kept, the address is not complete, or it was started in another browser.",
    ),
    CrossSiteError: Fault(
        403,
        "This was not done",
        "The request did not come from the page of the job. Open that page and press its button.",
    ),
}


def register_error_handlers(app: Flask) -> None:
    """Answer our errors wherever a view of ``app`` lets one pass."""
    for kind in FAULTS:
        app.register_error_handler(kind, answer)


def answer(error: Exception) -> Response:
    """The answer to an error."""
    fault = next(FAULTS[kind] for kind in type(error).__mro__ if kind in FAULTS)
    if fault.status == 503:
        current_app.logger.error("%s: %s", type(error).__name__, error)
    # The messages of our errors name settings and addresses: they are for the developer.
    detail = str(error) if current_app.debug and not isinstance(error, JobNotFound) else ""
    if wants_json():
        body: dict[str, t.Any] = {"error": f"{fault.title}. {fault.hint}", "status": fault.status}
        response = json_response(body | ({"detail": detail} if detail else {}), fault.status)
    else:
        response = page("error.html", fault.status, fault=fault, detail=detail)
    response.vary.add("Accept")
    response.headers["Cache-Control"] = "no-store"
    if fault.status == 503:
        retry_after = getattr(error, "retry_after", RETRY_AFTER)
        response.headers["Retry-After"] = str(retry_after)
    return response
