"""The pages of the person waiting: a job, its stream, its files; and to stop it."""

from __future__ import annotations

import typing as t
import uuid

from flask import Blueprint, Response, redirect, request, send_file

from .._background import RETRY_AFTER
from .._jobs import JobRecord
from ..exceptions import JobNotFound
from . import errors, pages, view
from .jobpage import job_html
from .links import Links
from .logs import log_text
from .negotiate import json_response, wants_json
from .response import KeptResponse, fence
from .result import PREVIEWS
from .sse import MAX_LISTED, Streams, last_seq
from .watch import JobWatch, ListWatch, seen_of

if t.TYPE_CHECKING:
    from .._config import Settings
    from .._control import Control
    from .access import Access

__all__ = ["make_blueprint"]


#: What a browser shows as it is, and cannot run. Anything else is a download.
INLINE = {*PREVIEWS, "text/plain"}
#: What a file may do. A sandbox keeps a browser's own viewer from showing a PDF; a PDF is no page,
#: and what runs in it does not run here.
FILE_POLICY = "default-src 'none'; frame-ancestors 'self'"


class JobPages:
    """The handlers. Each asks :class:`.Access` first; a job of somebody else does not exist."""

    def __init__(
        self,
        settings: Settings,
        control: Control,
        access: Access,
        debug_hint: t.Callable[[], bool],
    ) -> None:
        self._control = control
        self._access = access
        self._debug = debug_hint
        self.streams = Streams(
            control,
            seen_of(control),
            settings.max_streams,
            per_owner=settings.max_streams_per_owner,
        )

    def job(self, job_id: str) -> Response:
        """``GET /<id>``: the page, or JSON; ``?logs_after=N`` adds the lines after number N."""
        record = self._admitted(job_id)
        key, as_json = self._access.key(job_id), wants_json()
        if key and not as_json and request.headers.get("Sec-Fetch-Dest") != "empty":
            # Off the address bar with it, from where it would be copied and sent on. A script,
            # which has none, gets the page at once.
            response = t.cast("Response", redirect(self._access.page(job_id), 303))
        elif (moved := self._moved_on(record, as_json)) is not None:
            response = moved
        elif as_json:
            response = self._json(record)
        else:
            response = self._page(record)
        if key:
            # Also for an owner: the cookie of another first request may replace the one that
            # makes them the owner in a moment.
            self._access.remember_key(response, job_id)
        response.vary.update(("Accept", "Cookie"))
        return _private(response)

    def events(self, job_id: str) -> Response:
        """``GET /<id>/events``: the live stream of a job."""
        record = self._admitted(job_id)
        watch = JobWatch(self._control, job_id, self._links(record), last_seq(), self._debug())
        return self.streams.respond(watch, self._access.reader(record.id))

    def list_events(self) -> Response:
        """``GET /events?id=…&id=…``: one live stream for several jobs."""
        self._access.visitor()
        ids = [i for i in dict.fromkeys(request.args.getlist("id")) if _plausible(i)]
        records = self._control.store.get_many(ids[:MAX_LISTED])
        links = {r.id: self._links(r) for r in records if self._access.admits(r)}
        if not links:
            raise JobNotFound("")
        watch = ListWatch(self._control, links, self._debug())
        return self.streams.respond(watch, self._access.reader(next(iter(links))))

    def cancel(self, job_id: str) -> Response:
        """``POST /<id>/cancel``"""
        record = self._admitted(job_id)
        if not self._access.genuine(record):
            raise errors.CrossSiteError
        self._control.cancel(job_id, by=self._access.actor(record))
        if wants_json():
            return _private(self._json(self._control.get(job_id)))
        return t.cast("Response", redirect(self._links(record).to(), 303))

    def retry(self, job_id: str) -> Response:
        """``POST /<id>/retry``: run it again with the same input; the answer is the new job's."""
        record = self._admitted(job_id)
        if not self._access.genuine(record):
            raise errors.CrossSiteError
        if not self._control.repeatable(record):
            raise errors.NotRepeatableError
        # Two presses of one button come with one mark, and start one job.
        once = request.form.get("once", "")[:64]
        new_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{job_id} {once}")) if once else None
        new = self._control.retry(job_id, new_id)
        new_record = self._control.get(new.id)
        # Who came by the key of one job may see the next one, too.
        links = Links(self._access.page(new.id), self._access.next_key(record, new_record))
        if wants_json():
            seen = view.Seen.of(self._control, new_record, self._debug())
            response = json_response(view.job_json(new_record, links, seen), 201)
            response.headers["Location"] = links.to()
            return _private(response)
        return t.cast("Response", redirect(links.to(), 303))

    def log(self, job_id: str) -> Response:
        """``GET /<id>/log.txt``: the log as a download."""
        record = self._admitted(job_id)
        return _private(log_text(record, self._control.logs(job_id)))

    def file(self, job_id: str, name: str) -> Response:
        """``GET /<id>/files/<name>``"""
        record = self._admitted(job_id)
        try:
            info, stream = self._control.open_file(record, name)
        except FileNotFoundError:
            raise JobNotFound(job_id) from None
        inline = info["content_type"] in INLINE
        response = send_file(
            stream,
            info["content_type"],
            as_attachment=not inline,
            download_name=info["name"],
            conditional=False,
        )
        response.content_length = info["size"]
        response.make_conditional(request, accept_ranges=True, complete_length=info["size"])
        pdf = info["content_type"] == "application/pdf"
        response.headers["Content-Security-Policy"] = FILE_POLICY + ("" if pdf else "; sandbox")
        return _private(response)

    # -- what they share

    def _moved_on(self, record: JobRecord, as_json: bool) -> Response | None:
        """The way to the response of a background view that is over.

        Our own script says how it wants the JSON, and is not led on; nor is who asks to stay.
        """
        asked = {"stay"} if not as_json else {"stay", "format", "logs_after"}
        url = view.response_url(record, self._links(record))
        if url is None or not asked.isdisjoint(request.args):
            return None
        return t.cast("Response", redirect(url, 303))

    def _admitted(self, job_id: str) -> JobRecord:
        """The record, if the visitor may see it.

        :raises JobNotFound: There is no such job, or it is another person's; nobody can tell
            which.
        """
        # Asked before there is anything to decide: reading a session may leave its mark on the
        # answer, which must be the same for a job that does not exist.
        self._access.visitor()
        if not _plausible(job_id):
            raise JobNotFound(job_id)
        record = self._control.get(job_id)
        if not self._access.admits(record):
            raise JobNotFound(job_id)
        return record

    def _links(self, record: JobRecord) -> Links:
        return Links(self._access.page(record.id), self._access.key(record.id))

    def _json(self, record: JobRecord) -> Response:
        seen = view.Seen.of(self._control, record, self._debug())
        job = view.job_json(record, self._links(record), seen)
        after = request.args.get("logs_after", type=int)
        if after is not None:
            job["logs"] = view.log_json(self._control.logs(record.id, max(0, after)))
        response = json_response(job)
        if not record.state.finished:
            response.headers["Retry-After"] = str(RETRY_AFTER)
        return response

    def _page(self, record: JobRecord) -> Response:
        lines = self._control.logs(record.id) if record.log_lines else []
        seen = view.Seen.of(self._control, record, self._debug())
        token = self._access.form_token(record)
        return pages.answer(job_html(record, self._links(record), seen, lines, token))


def make_blueprint(
    settings: Settings, control: Control, access: Access, *, debug_hint: t.Callable[[], bool]
) -> Blueprint:
    """The blueprint of the job pages, ``offload``.

    :param debug_hint: Whether the reader is the developer, who is told commands.
    """
    blueprint = Blueprint(
        "offload", __name__, url_prefix=settings.jobs_prefix, template_folder="templates"
    )
    views = JobPages(settings, control, access, debug_hint)
    blueprint.add_url_rule("/static/<version>/<name>", "asset", pages.asset)
    blueprint.add_url_rule("/events", "list_events", views.list_events)
    blueprint.add_url_rule("/<job_id>", "job", views.job)
    blueprint.add_url_rule("/<job_id>/events", "events", views.events)
    blueprint.add_url_rule("/<job_id>/cancel", "cancel", views.cancel, methods=["POST"])
    blueprint.add_url_rule("/<job_id>/retry", "retry", views.retry, methods=["POST"])
    blueprint.add_url_rule("/<job_id>/log.txt", "log", views.log)
    blueprint.add_url_rule("/<job_id>/files/<name>", "file", views.file)
    kept = KeptResponse(control, views._admitted, views._links, access.owns)
    blueprint.add_url_rule("/<job_id>/response", "response", kept.response)
    for error in (errors.CrossSiteError, errors.NotRepeatableError):
        blueprint.register_error_handler(error, errors.answer)
    blueprint.after_request(fence)
    return blueprint


def _plausible(job_id: str) -> bool:
    return 0 < len(job_id) <= 200 and job_id.isprintable()


def _private(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
