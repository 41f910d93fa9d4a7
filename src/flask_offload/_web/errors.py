"""Our errors as answers: a small page, or JSON."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from flask import Flask, Response, current_app

from ..exceptions import EnqueueError, JobNotFound, LostAfterCommit, PayloadTooLarge, ServerError
from .negotiate import json_response, wants_json
from .pages import page
from .texts import gettext, mark

__all__ = ["CrossSiteError", "NotRepeatableError", "register_error_handlers"]

RETRY_AFTER = 5


class CrossSiteError(Exception):
    """A request of an admitted visitor that did not come from a page of ours."""


class NotRepeatableError(Exception):
    """A job that is not over, or whose task does not say that it may be run again by anybody."""


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
        mark("This could not be started"),
        mark("Nothing was changed. Wait a few seconds and try again."),
    ),
    # No second attempt: it would save everything twice.
    LostAfterCommit: Fault(
        500,
        mark("This was saved, but what should follow was not started"),
        mark(
            "Do not send it again. Tell those who run this site; they can read in its log what is "
            "missing."
        ),
    ),
    ServerError: Fault(
        503,
        mark("Jobs cannot be shown right now"),
        mark("What is running goes on. Wait a few seconds and reload this page."),
    ),
    PayloadTooLarge: Fault(
        413, mark("This is too large"), mark("Nothing was started. Try again with less at once.")
    ),
    JobNotFound: Fault(
        404,
        mark("This job cannot be found"),
        mark(
            "It is no longer kept, the address is not complete, or it was started in another "
            "browser."
        ),
    ),
    CrossSiteError: Fault(
        403,
        mark("This was not done"),
        mark(
            "The request did not come from the page of the job. Open that page and press its "
            "button."
        ),
    ),
    NotRepeatableError: Fault(
        409,
        mark("This cannot be run again"),
        mark("It is not over yet, or it is not meant to be run again from here."),
    ),
}


def register_error_handlers(app: Flask) -> None:
    """Answer our errors wherever a view of ``app`` lets one pass."""
    for kind in FAULTS:
        app.register_error_handler(kind, answer)


def answer(error: Exception) -> Response:
    """The answer to an error."""
    fault = next(FAULTS[kind] for kind in type(error).__mro__ if kind in FAULTS)
    if fault.status >= 500:
        current_app.logger.error("%s: %s", type(error).__name__, error)
    # The messages of our errors name settings and addresses: they are for the developer.
    detail = str(error) if current_app.debug and not isinstance(error, JobNotFound) else ""
    if wants_json():
        sentence = f"{gettext(fault.title)}. {gettext(fault.hint)}"
        body: dict[str, t.Any] = {"error": sentence, "status": fault.status}
        response = json_response(body | ({"detail": detail} if detail else {}), fault.status)
    else:
        response = page("error.html", fault.status, fault=fault, detail=detail)
    response.vary.add("Accept")
    response.headers["Cache-Control"] = "no-store"
    if fault.status == 503:
        retry_after = getattr(error, "retry_after", RETRY_AFTER)
        response.headers["Retry-After"] = str(retry_after)
    return response
