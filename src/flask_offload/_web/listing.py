"""The list of the visitor's own jobs, for a page of the developer's."""

from __future__ import annotations

import time
import typing as t

from flask import current_app, render_template, url_for
from markupsafe import Markup

from .._store import StoreUnavailable
from . import pages, view
from .links import Links
from .sse import MAX_LISTED

if t.TYPE_CHECKING:
    from .._control import Control
    from .._jobs import JobRecord
    from .access import Access

__all__ = ["jobs_list"]


def jobs_list(control: Control, access: Access, limit: int) -> Markup:
    """The newest jobs of the visitor, live, to be put anywhere in a page.

    It brings its style and script along. A server that is away costs the list, not the page.

    :param limit: Most jobs to show.
    """
    context: dict[str, t.Any] = {"items": [], "away": False}
    try:
        records = _newest(control, access, limit)
        seen = view.Seen.of_many(control, records, current_app.debug)
        context["items"] = [_item(access, *each) for each in zip(records, seen, strict=True)]
    except StoreUnavailable as error:
        current_app.logger.error("The list of jobs cannot be shown: %s", error)
        context["away"] = True
    open_ids = [i["record"].id for i in context["items"] if not i["record"].state.finished]
    context["stream"] = url_for("offload.list_events", id=open_ids[:MAX_LISTED]) if open_ids else ""
    html = render_template(
        "offload/list.html", now=time.time(), **pages.template_helpers(), **context
    )
    return Markup(html.encode("utf-8", "replace").decode())  # noqa: S704


def _newest(control: Control, access: Access, limit: int) -> list[JobRecord]:
    found: dict[str, JobRecord] = {}
    for owner in access.visitor():
        for record in control.newest(owner=owner, limit=limit):
            if access.owns(record):
                found[record.id] = record
    return sorted(found.values(), key=lambda record: record.created_at, reverse=True)[:limit]


def _item(access: Access, record: JobRecord, seen: view.Seen) -> dict[str, t.Any]:
    return {
        "record": record,
        "job": view.job_json(record, Links(access.page(record.id)), seen, brief=True),
        "url": access.job_url(record.id),
        "sentences": seen.lines(record, brief=True),
        "token": access.form_token(record),
    }
