"""What a live stream tells: one job with its log, or a list of jobs."""

from __future__ import annotations

import typing as t
from dataclasses import replace
from functools import partial

from .._jobs import JobRecord, LogLine
from .sse import event
from .texts import Texts, speak, texts
from .view import Seen, dumps, job_json, log_json

if t.TYPE_CHECKING:
    from .._control import Control
    from .links import Links
    from .reader import Snapshot

__all__ = ["JobWatch", "ListWatch", "seen_of"]

#: Fields that change by themselves; the page counts on its own, and a version shows nothing.
CLOCKWORK = frozenset({"now", "text", "version"})


def seen_of(control: Control) -> t.Callable[[t.Sequence[JobRecord]], list[Seen]]:
    """How all streams see records, but for when, and for who is the developer."""
    return lambda records: [
        replace(seen, now=0.0) for seen in Seen.of_many(control, records, debug=False)
    ]


class Said(t.NamedTuple):
    """An event, and what of it has to change for another one to be sent."""

    shown: str
    text: str


class JobWatch:
    """One job, with its result and the log lines after number ``seq``."""

    whole = True

    def __init__(self, control: Control, job_id: str, links: Links, seq: int, debug: bool) -> None:
        self.job_ids = frozenset([job_id])
        self.over = False
        self._control = control
        self._id = job_id
        self._links = links
        self._seq = seq
        self._debug = debug
        # Of the request, which is over when the stream speaks.
        self._texts = texts()
        self._shown = ""

    def tell(self, news: t.Mapping[str, Snapshot]) -> t.Iterator[str]:
        snapshot = news.get(self._id)
        if snapshot is None:
            return
        record = snapshot.record
        if record is None:
            self.over = True
            yield event("gone", {"id": self._id})
            return
        self.over = record.state.finished
        lines = snapshot.lines_after(self._seq)
        if lines is None and record.log_lines > self._seq:
            # Behind what all share. Of a finished job, no line can follow its record.
            lines = self._control.logs(self._id, self._seq)
            said = _say(snapshot, self._links, self._debug, self._texts, lines, self._seq)
        else:
            # Who has the same lines is told the same.
            key = (self._links, self._debug, self._texts.language, self._seq)
            tell = partial(
                _say, snapshot, self._links, self._debug, self._texts, lines or [], self._seq
            )
            said = snapshot.once(key, tell)
        if said.shown == self._shown and not lines:
            return
        self._shown = said.shown
        if lines:
            self._seq = lines[-1].seq
        yield said.text


class ListWatch:
    """Several jobs, without results and logs."""

    whole = False

    def __init__(self, control: Control, links: dict[str, Links], debug: bool) -> None:
        self.job_ids = frozenset(links)
        self._links = links
        self._debug = debug
        # Of the request, which is over when the stream speaks.
        self._texts = texts()
        self._shown: dict[str, str] = {}
        self._open = set(links)

    @property
    def over(self) -> bool:
        return not self._open

    def tell(self, news: t.Mapping[str, Snapshot]) -> t.Iterator[str]:
        for job_id, links in self._links.items():
            snapshot = news.get(job_id)
            if snapshot is None or job_id not in self._open:
                continue
            if snapshot.record is None:
                self._open.discard(job_id)
                yield event("gone", {"id": job_id})
                continue
            if snapshot.record.state.finished:
                self._open.discard(job_id)
            key = (links, self._debug, self._texts.language)
            said = snapshot.once(key, partial(_say, snapshot, links, self._debug, self._texts))
            if said.shown != self._shown.get(job_id):
                self._shown[job_id] = said.shown
                yield said.text


def _say(
    snapshot: Snapshot,
    links: Links,
    debug: bool,
    language: Texts,
    lines: t.Sequence[LogLine] | None = None,
    seq: int = 0,
) -> Said:
    """
    :param lines: ``None`` for a list, which tells neither logs nor results.
    :param seq: The last line that the reader has.
    """
    record = t.cast("JobRecord", snapshot.record)
    if lines is None and record.result is not None:
        # Read for a page that shows the whole job.
        record = replace(record, result=None)
    seen = replace(snapshot.facts, now=snapshot.at, debug=debug)
    with speak(language):
        job = job_json(record, links, seen)
    shown = dumps({key: value for key, value in job.items() if key not in CLOCKWORK})
    last_id = record.event_id
    if lines is not None:
        job["logs"] = log_json(lines)
        last_id += f"~{lines[-1].seq if lines else seq}"
    return Said(shown, event("job", job, last_id))
