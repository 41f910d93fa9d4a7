"""The live streams (Server-Sent Events)."""

from __future__ import annotations

import threading
import time
import typing as t

from flask import Response, request

from .._store import StoreUnavailable
from .view import dumps

if t.TYPE_CHECKING:
    from .._control import Control

__all__ = ["MAX_LISTED", "Streams", "Watch", "event", "last_seq"]

#: Most jobs that one stream tells of.
MAX_LISTED = 50


class Watch(t.Protocol):
    """What a stream tells of: one job, or several."""

    @property
    def job_ids(self) -> frozenset[str]: ...

    @property
    def recheck(self) -> float:
        """Seconds after which it is to look again without a change."""
        ...

    @property
    def over(self) -> bool:
        """Whether nothing will change any more."""
        ...

    def look(self, job_ids: t.Collection[str]) -> t.Iterator[str]:
        """Read these jobs, and give an event for each that reads differently now."""
        ...


class Streams:
    """The streams of one process.

    :param limit: Most at once; each holds a thread of the web server.
    :param lifetime: Seconds after which a stream ends. The page opens the next one, and who may
        see the job is asked again.
    :param heartbeat: Seconds of silence after which a sign of life is sent.
    :param recheck: Most seconds after which jobs are read again without a change of theirs; what
        is watched may ask for less.
    :param pace: Least seconds from one look to the next.
    """

    def __init__(
        self,
        control: Control,
        limit: int,
        *,
        lifetime: float = 300.0,
        heartbeat: float = 15.0,
        recheck: float = 5.0,
        pace: float = 0.1,
    ) -> None:
        self._control = control
        self._slots = threading.BoundedSemaphore(limit)
        self._lifetime = lifetime
        self._heartbeat = heartbeat
        self._recheck = recheck
        self._pace = pace

    def respond(self, watch: Watch) -> Response:
        """A stream; an empty answer where none can be held, which tells the page to poll."""
        response = Response(mimetype="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"
        if request.method == "HEAD":
            return response
        if not request.environ.get("wsgi.multithread") or not self._slots.acquire(blocking=False):
            response.status_code = 204
            return response
        # The server closes the answer in any case, also one that it never began to send.
        response.call_on_close(self._slots.release)
        response.response = self.events(watch)
        return response

    def events(self, watch: Watch) -> t.Iterator[str]:
        """The events of a stream, as text."""
        yield "retry: 2000\n\n"
        end = time.monotonic() + self._lifetime
        # Subscribed first and read after, so that no change falls in between.
        with self._control.feed.subscribe(watch.job_ids) as subscription:
            due: t.Collection[str] = watch.job_ids
            spoke_at = time.monotonic()
            while True:
                looked_at = time.monotonic()
                spoke = False
                try:
                    for text in watch.look(due):
                        yield text
                        spoke = True
                except StoreUnavailable:
                    # Nobody knows how the job is. The page says so when it cannot come back.
                    return
                if spoke:
                    spoke_at = time.monotonic()
                if watch.over:
                    yield event("end", {})
                    return
                now = time.monotonic()
                if now >= end:
                    return
                if now - spoke_at >= self._heartbeat:
                    # A comment is for proxies; the page cannot see it, hence the event.
                    yield ": still here\n" + event("beat", {})
                    spoke_at = now
                patience = min(self._recheck, watch.recheck, self._heartbeat, end - now)
                changed = subscription.wait(patience)
                rest = looked_at + self._pace - time.monotonic()
                if changed and rest > 0:
                    time.sleep(rest)
                    changed |= subscription.wait(0)
                due = changed or watch.job_ids


def event(name: str, data: object, last_id: str = "") -> str:
    """One event of a stream. JSON has no line breaks, so the data are one line."""
    id_line = f"id: {last_id}\n" if last_id else ""
    return f"event: {name}\n{id_line}data: {dumps(data)}\n\n"


def last_seq() -> int:
    """The last log line that the client has: what an earlier stream said, else the page."""
    known = request.headers.get("Last-Event-ID") or request.args.get("last_event_id", "")
    _, _, seq = known.partition("~")
    return min(int(seq), 10**12) if seq.isascii() and seq.isdigit() and len(seq) < 20 else 0
