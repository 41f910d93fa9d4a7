"""What a live stream tells: one job with its log, or a list of jobs."""

from __future__ import annotations

import time
import typing as t

from .._jobs import JobRecord, JobState
from ..exceptions import JobNotFound
from .sse import event
from .view import Links, job_json, log_json

if t.TYPE_CHECKING:
    from .._control import Control

__all__ = ["JobWatch", "ListWatch", "Presence"]

#: Fields that change by themselves; the page counts on its own.
CLOCKWORK = frozenset({"now", "text"})


class Presence:
    """Whether workers are there for jobs, asked no oftener than a reader can notice."""

    def __init__(self, control: Control, fresh: float = 2.0) -> None:
        self._control = control
        self._fresh = fresh
        self._known: dict[str, tuple[tuple[JobState, str], float, str]] = {}

    def __call__(self, record: JobRecord) -> str:
        """What :meth:`.Control.worker_missing` says."""
        if record.state.finished:
            return ""
        situation = (record.state, record.worker)
        before, asked_at, answer = self._known.get(record.id, (None, 0.0, ""))
        now = time.monotonic()
        if before != situation or now - asked_at >= self._fresh:
            answer = self._control.worker_missing(record)
            self._known[record.id] = (situation, now, answer)
        return answer


class JobWatch:
    """One job, with its result and the log lines after number ``seq``."""

    def __init__(self, control: Control, job_id: str, links: Links, seq: int, debug: bool) -> None:
        self.job_ids = frozenset([job_id])
        self.over = False
        self._control = control
        self._id = job_id
        self._links = links
        self._seq = seq
        self._debug = debug
        self._presence = Presence(control)
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
        job = job_json(
            record,
            self._links,
            now=time.time(),
            waiting_for=self._presence(record),
            debug=self._debug,
        )
        shown = {key: value for key, value in job.items() if key not in CLOCKWORK}
        self.over = record.state.finished
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
        self._presence = Presence(control)
        self._sent: dict[str, dict[str, t.Any]] = {}
        self._open = set(links)

    @property
    def over(self) -> bool:
        return not self._open

    def look(self, job_ids: t.Collection[str]) -> t.Iterator[str]:
        asked = [job_id for job_id in self._links if job_id in job_ids and job_id in self._open]
        records = self._control.store.get_many(asked)
        for job_id in set(asked) - {record.id for record in records}:
            self._open.discard(job_id)
            yield event("gone", {"id": job_id})
        for record in records:
            if record.state.finished:
                self._open.discard(record.id)
            job = job_json(
                record,
                self._links[record.id],
                now=time.time(),
                waiting_for=self._presence(record),
                debug=self._debug,
            )
            shown = {key: value for key, value in job.items() if key not in CLOCKWORK}
            if shown != self._sent.get(record.id):
                self._sent[record.id] = shown
                yield event("job", job, record.event_id)
