"""What the live streams of a process show: read from the server once for all of them."""

from __future__ import annotations

import logging
import os
import threading
import time
import typing as t
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field

from .._jobs import JobRecord, JobState, LogLine
from .._store import StoreUnavailable
from .reader import Reader, Snapshot

if t.TYPE_CHECKING:
    from .._control import Control
    from .client import Client

__all__ = ["Board"]

#: Log lines of a job that are kept for streams that are a little behind; who is further behind
#: reads for itself.
TAIL = 100
#: Seconds from one look at the clock to the next: for jobs to read again, and readers to drop.
SWEEP = 1.0
#: Jobs that are read at once; few enough for a server of greenlets to do something else between.
BATCH = 50

_log = logging.getLogger("flask_offload")


@dataclass(slots=True)
class _Shown:
    """A job that streams show.

    :param whole: How many of its readers show its result and its log.
    :param next_at: From when on it may be read at the steady pace.
    """

    readers: set[Reader] = field(default_factory=set)
    whole: int = 0
    snapshot: Snapshot | None = None
    in_line: bool = False
    tail: deque[LogLine] = field(default_factory=lambda: deque(maxlen=TAIL))
    #: The lines after the first of these numbers, up to the second, are in the tail. It begins
    #: with the first look: what was written before, each reader has, or reads for itself.
    first: int | None = None
    seq: int = 0
    next_at: float = 0.0
    read_at: float = 0.0


class Board:
    """Reads each job that changed, once, and hands it to the streams that show it.

    One thread does so while there are streams. It reads after the feed has told of a change, and
    a stream is among the readers of a job before that job is read for it: so none misses the last
    change.

    :param facts: What is to be known of each of some records that is not in it, such as whether
        its worker is there.
    :param pace: Seconds from one look at a job to the next, on average. The first change is shown
        at once, and what follows at that pace never waits.
    :param recheck: Seconds after which a job is read again without a change, since a worker that
        goes away changes none. One in line is at each sweep, for its place.
    :param patience: Seconds after which a reader that takes nothing is dropped.
    """

    def __init__(
        self,
        control: Control,
        facts: t.Callable[[t.Sequence[JobRecord]], t.Sequence[t.Any]],
        *,
        pace: float,
        recheck: float,
        patience: float,
    ) -> None:
        self._control = control
        self._facts = facts
        self._pace = pace
        self._recheck = recheck
        self._patience = patience
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._condition = threading.Condition()
        self._shown: dict[str, _Shown] = {}
        self._readers: set[Reader] = set()
        self._changed: set[str] = set()
        self._running = False
        self._swept_at = 0.0

    @property
    def readers(self) -> int:
        """How many streams there are."""
        return len(self._readers)

    @contextmanager
    def reader(
        self, job_ids: t.Collection[str], *, whole: bool = False, client: Client | None = None
    ) -> t.Iterator[Reader]:
        """Have these jobs told, first as they are now, then at each change.

        :param whole: With their results and logs.
        :param client: Its connection, to be cut when it takes nothing.
        """
        if self._pid != os.getpid():
            # The thread does not survive a fork.
            self._reset()
        reader = Reader(whole, client)
        with self._condition:
            self._readers.add(reader)
            for job_id in job_ids:
                self._show(job_id, reader)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="offload-board", daemon=True).start()
            self._condition.notify()
        try:
            yield reader
        finally:
            reader.close()
            with self._condition:
                self._readers.discard(reader)
                for job_id in job_ids:
                    self._hide(job_id, reader)

    def _show(self, job_id: str, reader: Reader) -> None:
        shown = self._shown.setdefault(job_id, _Shown())
        shown.readers.add(reader)
        shown.whole += reader.whole
        if shown.snapshot is None or not reader.put({job_id: shown.snapshot}):
            self._changed.add(job_id)

    def _hide(self, job_id: str, reader: Reader) -> None:
        shown = self._shown.get(job_id)
        if shown is None or reader not in shown.readers:
            return
        shown.readers.discard(reader)
        shown.whole -= reader.whole
        if not shown.readers:
            del self._shown[job_id]
            self._changed.discard(job_id)

    # -- the thread

    def _run(self) -> None:
        try:
            with self._control.feed.heard_by(self._hear):
                while (job_ids := self._next()) is not None:
                    try:
                        for start in range(0, len(job_ids), BATCH):
                            self._read(job_ids[start : start + BATCH])
                    except StoreUnavailable:
                        # Nobody knows how any job is: all streams end, and the pages find out.
                        # For each batch by itself, that would take the time that one may wait.
                        self._fail(list(self._shown))
        except BaseException:
            with self._condition:
                self._running = False
                for reader in self._readers:
                    reader.close()
            raise

    def _hear(self, job_ids: set[str] | None) -> None:
        with self._condition:
            self._changed |= self._shown.keys() if job_ids is None else job_ids & self._shown.keys()
            if self._changed:
                self._condition.notify()

    def _next(self) -> list[str] | None:
        """The jobs to read now; ``None`` when the last stream has ended."""
        with self._condition:
            while True:
                if not self._readers:
                    self._running = False
                    return None
                now = time.monotonic()
                if now - self._swept_at >= SWEEP:
                    self._swept_at = now
                    self._sweep(now)
                # Two at once, so that a steady pace is kept without ever waiting for a beat.
                at = {i: self._shown[i].next_at - self._pace for i in self._changed}
                due = [job_id for job_id, when in at.items() if when <= now]
                if due:
                    self._changed.difference_update(due)
                    for job_id in due:
                        shown = self._shown[job_id]
                        shown.next_at = max(now, shown.next_at) + self._pace
                        shown.read_at = now
                    return due
                until = min(self._swept_at + SWEEP, min(at.values(), default=now + SWEEP))
                self._condition.wait(max(0.001, until - now))

    def _sweep(self, now: float) -> None:
        """Find what is to be read again, and who is gone or takes nothing."""
        for job_id, shown in self._shown.items():
            if now - shown.read_at >= (SWEEP * 0.9 if shown.in_line else self._recheck):
                self._changed.add(job_id)
        for reader in self._readers:
            if reader.gone() or reader.busy(now) > self._patience:
                reader.drop()

    def _read(self, job_ids: t.Sequence[str]) -> None:
        try:
            self._tell(job_ids)
        except Exception as error:
            if isinstance(error, StoreUnavailable) and not error.for_good:
                raise
            if len(job_ids) == 1:
                _log.exception("The job %s cannot be shown live.", job_ids[0])
                return self._fail(job_ids)
            # One of them cannot be read. The others can.
            for job_id in job_ids:
                self._read([job_id])
        return None

    def _tell(self, job_ids: t.Sequence[str]) -> None:
        with self._condition:
            whole = {i for i in job_ids if i in self._shown and self._shown[i].whole}
        records = self._control.store.get_many(job_ids, whole)
        found = {r.id: (r, its) for r, its in zip(records, self._facts(records), strict=True)}
        news: dict[str, Snapshot] = {}
        for job_id in job_ids:
            record, facts = found.get(job_id, (None, None))
            snapshot = self._look(job_id, record, facts, whole=job_id in whole)
            if snapshot is not None:
                news[job_id] = snapshot
        with self._condition:
            # Of several jobs in one piece, for a list.
            told: dict[Reader, dict[str, Snapshot]] = {}
            for job_id, snapshot in news.items():
                shown = self._shown.get(job_id)
                if shown is None:
                    continue
                shown.snapshot = snapshot
                record = snapshot.record
                shown.in_line = record is not None and record.state is JobState.QUEUED
                for reader in shown.readers:
                    told.setdefault(reader, {})[job_id] = snapshot
            for reader, its in told.items():
                reader.put(its)

    def _look(
        self, job_id: str, record: JobRecord | None, facts: t.Any, *, whole: bool
    ) -> Snapshot | None:
        """A job as it is now, if anything is new."""
        shown = self._shown.get(job_id)
        if shown is None:
            return None
        if whole and record is not None:
            self._add_lines(shown, record)
        snapshot = Snapshot(record, facts, time.time(), shown.first, tuple(shown.tail), whole)
        return None if snapshot.same_as(shown.snapshot) else snapshot

    def _add_lines(self, shown: _Shown, record: JobRecord) -> None:
        if shown.first is None:
            shown.first = shown.seq = record.log_lines
        if record.log_lines <= shown.seq:
            return
        # The log is read after the record: of a finished one, no line can follow.
        lines = self._control.logs(record.id, shown.seq)
        kept = [*shown.tail, *lines]
        if len(kept) > TAIL:
            shown.first = kept[-TAIL - 1].seq
        shown.tail.extend(lines)
        shown.seq = lines[-1].seq if lines else record.log_lines

    def _fail(self, job_ids: t.Iterable[str]) -> None:
        with self._condition:
            now = time.monotonic()
            for job_id in job_ids:
                shown = self._shown.get(job_id)
                if shown is None:
                    continue
                for reader in shown.readers:
                    reader.close()
                shown.snapshot = None
                # For who comes in between.
                self._changed.add(job_id)
                shown.next_at = now + SWEEP + self._pace
