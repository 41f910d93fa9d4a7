"""The live streams (Server-Sent Events)."""

from __future__ import annotations

import random
import time
import typing as t

from flask import Response, request

from .._store import StoreUnavailable
from .board import Board
from .client import Client
from .places import Places
from .reader import Snapshot
from .view import dumps

if t.TYPE_CHECKING:
    from .._control import Control
    from .._jobs import JobRecord

__all__ = ["MAX_LISTED", "Streams", "Watch", "event", "last_seq"]

#: Most jobs that one stream tells of.
MAX_LISTED = 50
#: Characters that a stream says at once. A client on a slow line that needs long for a large result
#: reads on, piece by piece; one that reads nothing does not.
PIECE = 1 << 16


class Watch(t.Protocol):
    """What a stream tells of: one job, or several."""

    @property
    def job_ids(self) -> frozenset[str]: ...

    @property
    def whole(self) -> bool:
        """Whether it tells results and logs."""
        ...

    @property
    def over(self) -> bool:
        """Whether nothing will change any more."""
        ...

    def tell(self, news: t.Mapping[str, Snapshot]) -> t.Iterator[str]:
        """An event for each of these jobs that reads differently now."""
        ...


class Streams:
    """The streams of one process.

    :param facts: See :class:`.Board`.
    :param limit: Most at once; on most web servers each holds a thread.
    :param per_owner: Most at once of one owner.
    :param lifetime: Seconds after which a stream ends. The page opens the next one, and who may
        see the job is asked again.
    :param heartbeat: Seconds of silence after which a sign of life is sent.
    :param recheck, pace, patience: See :class:`.Board`.
    """

    def __init__(
        self,
        control: Control,
        facts: t.Callable[[t.Sequence[JobRecord]], t.Sequence[t.Any]],
        limit: int,
        *,
        per_owner: int = 5,
        lifetime: float = 300.0,
        heartbeat: float = 15.0,
        recheck: float = 5.0,
        pace: float = 0.1,
        patience: float = 20.0,
    ) -> None:
        self._places = Places(limit, per_owner)
        self.board = Board(control, facts, pace=pace, recheck=recheck, patience=patience)
        self._lifetime = lifetime
        self._heartbeat = heartbeat

    def respond(self, watch: Watch, owner: str) -> Response:
        """A stream; an empty answer where none can be held, which tells the page to poll.

        :param owner: Whose it is.
        """
        response = Response(mimetype="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"
        if request.method == "HEAD":
            return response
        client = Client.of(request.environ)
        threaded = request.environ.get("wsgi.multithread")
        place = self._places.take(owner, client) if threaded else None
        if place is None:
            response.status_code = 204
            return response
        # The server closes the answer in any case, also one that it never began to send.
        response.call_on_close(place.give_back)
        response.response = self.events(watch, client)
        return response

    def events(self, watch: Watch, client: Client | None = None) -> t.Iterator[str]:
        """The events of a stream, as text."""
        # Those that ended at once, with their server, do not come back at once.
        yield f"retry: {random.randint(1_000, 3_000)}\n\n"  # noqa: S311
        spoke_at = time.monotonic()
        end = spoke_at + self._lifetime * random.uniform(0.9, 1.0)  # noqa: S311
        with self.board.reader(watch.job_ids, whole=watch.whole, client=client) as reader:
            while (now := time.monotonic()) < end:
                beat_at = spoke_at + self._heartbeat
                news = reader.take(max(0.0, min(beat_at, end) - now))
                if news is None:
                    # Nobody knows how the job is, or who reads is too slow: the page comes back,
                    # or says that it cannot.
                    return
                try:
                    text = "".join(watch.tell(news))
                except StoreUnavailable:
                    return
                if watch.over:
                    text += event("end", {})
                elif not text and time.monotonic() >= beat_at:
                    # A comment is for proxies; the page cannot see it, hence the event.
                    text = ": still here\n" + event("beat", {})
                for start in range(0, len(text), PIECE):
                    yield text[start : start + PIECE]
                    reader.sent()
                    spoke_at = time.monotonic()
                if watch.over:
                    return


def event(name: str, data: object, last_id: str = "") -> str:
    """One event of a stream. JSON has no line breaks, so the data are one line."""
    id_line = f"id: {last_id}\n" if last_id else ""
    return f"event: {name}\n{id_line}data: {dumps(data)}\n\n"


def last_seq() -> int:
    """The last log line that the client has: what an earlier stream said, else the page."""
    known = request.headers.get("Last-Event-ID") or request.args.get("last_event_id", "")
    _, _, seq = known.partition("~")
    return min(int(seq), 10**12) if seq.isascii() and seq.isdigit() and len(seq) < 20 else 0
