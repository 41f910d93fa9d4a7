"""What a live stream tells: one job with its log, or a list of jobs."""

from __future__ import annotations

import typing as t

from .._jobs import JobState
from ..exceptions import JobNotFound
from .sse import event
from .texts import Texts, speak, texts
from .view import Seen, job_json, log_json

if t.TYPE_CHECKING:
    from .._control import Control
    from .links import Links

__all__ = ["JobWatch", "ListWatch"]

#: Fields that change by themselves; the page counts on its own.
CLOCKWORK = frozenset({"now", "text"})
#: Seconds after which jobs are read again without a change of theirs, since a worker that goes
#: away changes none; and of those in line, which moves by what happens to others.
RECHECK, RECHECK_IN_LINE = 5.0, 1.0


class JobWatch:
    """One job, with its result and the log lines after number ``seq``."""

    def __init__(self, control: Control, job_id: str, links: Links, seq: int, debug: bool) -> None:
        self.job_ids = frozenset([job_id])
        self.over = False
        self.recheck = RECHECK
        self._control = control
        self._id = job_id
        self._links = links
        self._seq = seq
        self._debug = debug
        # Of the request, which is over when the stream speaks.
        self._texts: Texts = texts()
        self._sent: dict[str, t.Any] | None = None

    def look(self, job_ids: t.Collection[str]) -> t.Iterator[str]:
        try:
            record = self._control.get(self._id)
        except JobNotFound:
            self.over = True
            yield event("gone", {"id": self._id})
            return
        # The log is read after the record: of a finished one, no line can follow.
        lines = self._control.logs(self._id, self._seq) if record.log_lines > self._seq else []
        with speak(self._texts):
            job = job_json(record, self._links, Seen.of(self._control, record, self._debug))
        shown = {key: value for key, value in job.items() if key not in CLOCKWORK}
        self.over = record.state.finished
        self.recheck = RECHECK_IN_LINE if record.state is JobState.QUEUED else RECHECK
        if shown == self._sent and not lines:
            return
        self._sent = shown
        if lines:
            self._seq = lines[-1].seq
        job["logs"] = log_json(lines)
        yield event("job", job, f"{record.event_id}~{self._seq}")


class ListWatch:
    """Several jobs, without results and logs."""

    def __init__(self, control: Control, links: dict[str, Links], debug: bool) -> None:
        self.job_ids = frozenset(links)
        self._control = control
        self._links = links
        self._debug = debug
        # Of the request, which is over when the stream speaks.
        self._texts: Texts = texts()
        self._sent: dict[str, dict[str, t.Any]] = {}
        self._open = set(links)
        self._in_line: set[str] = set()

    @property
    def over(self) -> bool:
        return not self._open

    @property
    def recheck(self) -> float:
        return RECHECK_IN_LINE if self._in_line & self._open else RECHECK

    def look(self, job_ids: t.Collection[str]) -> t.Iterator[str]:
        asked = [job_id for job_id in self._links if job_id in job_ids and job_id in self._open]
        records = self._control.store.get_many(asked)
        for job_id in set(asked) - {record.id for record in records}:
            self._open.discard(job_id)
            yield event("gone", {"id": job_id})
        for record in records:
            if record.state is JobState.QUEUED:
                self._in_line.add(record.id)
            else:
                self._in_line.discard(record.id)
            if record.state.finished:
                self._open.discard(record.id)
            with speak(self._texts):
                seen = Seen.of(self._control, record, self._debug)
                job = job_json(record, self._links[record.id], seen, brief=True)
            shown = {key: value for key, value in job.items() if key not in CLOCKWORK}
            if shown != self._sent.get(record.id):
                self._sent[record.id] = shown
                yield event("job", job, record.event_id)
