"""``GET /<id>/response``: what a background view answered."""

from __future__ import annotations

import typing as t

from flask import Response, redirect

from .._background import serve
from ..exceptions import JobNotFound
from . import pages
from .negotiate import wants_json

if t.TYPE_CHECKING:
    from .._control import Control
    from .._jobs import JobRecord
    from .links import Links

__all__ = ["KeptResponse", "fence"]

#: Marks what the app answered, not we.
APPS = "_offload_of_the_app"
#: A policy more than the app's own: without scripts, and of no origin.
SANDBOX = "sandbox allow-downloads allow-popups allow-top-navigation-by-user-activation"


class KeptResponse:
    """The handler.

    :param admitted: Gives the record of a job if the visitor may see it.
    :param owns: Whether the visitor has started it, and not only holds its key.
    """

    def __init__(
        self,
        control: Control,
        admitted: t.Callable[[str], JobRecord],
        links: t.Callable[[JobRecord], Links],
        owns: t.Callable[[JobRecord], bool],
    ) -> None:
        self._control = control
        self._admitted = admitted
        self._links = links
        self._owns = owns

    def response(self, job_id: str) -> Response:
        record = self._admitted(job_id)
        response = None
        if record.state.finished and record.response is not None:
            try:
                response = serve(self._control, job_id)
            except FileNotFoundError:
                raise JobNotFound(job_id) from None
        if response is None:
            # Not done yet, or stopped, or its worker died: the page of the job says which.
            query = {"format": "json"} if wants_json() else {}
            response = t.cast("Response", redirect(self._links(record).to(**query), 303))
            response.headers["Cache-Control"] = "no-store"
            response.vary.update(("Accept", "Cookie"))
            return response
        if not self._owns(record):
            # Somebody has passed on the key. What a view made of the input of one person must not
            # act as the app in the browser of another one.
            response.headers.add("Content-Security-Policy", SANDBOX)
        setattr(response, APPS, True)
        return response


def fence(response: Response) -> Response:
    """Fence in all answers of ours; what the app has answered is served as the app would."""
    return response if hasattr(response, APPS) else pages.fence(response)
