"""A job as HTML: a page of its own, or a part of a page of the developer's."""

from __future__ import annotations

import typing as t
import uuid

from flask import current_app
from markupsafe import Markup

from .._jobs import JobRecord, LogLine
from .._store import StoreUnavailable
from ..exceptions import JobNotFound
from . import pages, view
from .links import Links
from .reading import size
from .result import result_of

if t.TYPE_CHECKING:
    from .._control import Control
    from .access import Access

__all__ = ["job_html", "job_part", "scripts"]


def job_html(
    record: JobRecord,
    links: Links,
    seen: view.Seen,
    lines: t.Sequence[LogLine],
    token: str,
    layout: str = "base.html",
) -> str:
    """The template ``offload/job.html``.

    :param layout: What is around it. A page of the developer's has a heading of its own.
    """
    result = result_of(record, links)
    return pages.render(
        "job.html",
        layout=f"offload/{layout}",
        heading="h1" if layout == "base.html" else "h2",
        record=record,
        links=links,
        job=view.job_json(record, links, seen),
        result=result,
        # The file that is the result is not listed twice.
        files=[
            {"name": f["name"], "url": links.file(f["name"]), "size": size(f["size"])}
            for f in record.files
            if not (result.kind in ("file", "image", "pdf") and result.text == f["name"])
        ],
        failed=record.state in view.FAILED,
        lines=lines,
        now=seen.now,
        debug=seen.debug,
        sentences=seen.lines(record),
        token=token,
        once=uuid.uuid4().hex,
    )


def job_part(control: Control, access: Access, job: t.Any) -> Markup:
    """A job, live, to be put anywhere in a page.

    It brings its style and script along. Nothing is shown of a job that the visitor may not see,
    and a server that is away costs the job, not the page.

    :param job: A job, or its id.
    """
    job_id = job if isinstance(job, str) else job.id
    try:
        record = control.get(job_id)
        if not access.admits(record):
            return Markup("")
        lines = control.logs(job_id) if record.log_lines else []
        seen = view.Seen.of(control, record, current_app.debug)
    except JobNotFound:
        return Markup("")
    except StoreUnavailable as error:
        current_app.logger.error("A job cannot be shown: %s", error)
        return Markup(pages.render("away.html"))  # noqa: S704
    # Of a new visitor, whose cookie is only just on its way, the page asks with the key.
    links = Links(access.page(job_id), access.key_for(job_id))
    html = job_html(record, links, seen, lines, access.form_token(record), "part.html")
    return Markup(html.encode("utf-8", "replace").decode())  # noqa: S704


def scripts() -> Markup:
    """What an ``<offload-job href="…">`` needs that is written by hand."""
    return Markup(pages.render("scripts.html"))  # noqa: S704
