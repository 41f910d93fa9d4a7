"""``current_job``: what a task may say to the person waiting.

Nothing here waits for the server on the path of the task: progress and log lines are noted, and
one thread a process sends what is new: the first of a job at once, then ten times a second.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import threading
import time
import typing as t
from collections import deque
from contextvars import ContextVar

from werkzeug.local import LocalProxy

from ._jobs import Progress
from ._store import StoreUnavailable
from .exceptions import JobCancelled

if t.TYPE_CHECKING:
    from ._store import FileStore, NewJob, Store

__all__ = [
    "CurrentJob",
    "JobLogHandler",
    "MaskSecrets",
    "bind",
    "current_job",
    "mask",
    "owners_of",
    "running_job",
]

T = t.TypeVar("T")

#: Seconds from one report of a job to the next, on average.
INTERVAL = 0.1
#: Least seconds from one round of reports of a process to the next: of many quick jobs, most have
#: reported at their end by then.
SPACING = 0.01
#: How old the knowledge of a cancel may be when a task asks for it.
CANCEL_CHECK = 0.5
MASK = "•••"


class CurrentJob:
    """The job that runs here, as :data:`current_job` gives it.

    Outside a job (a task called as a plain function, a test) the same calls do nothing, and
    :meth:`track` just iterates.
    """

    #: The id of the job; empty outside a job.
    id: str = ""
    #: Which try this is, from 1.
    attempt: int = 1
    #: Rises each time the job is handed to a worker. A system that keeps the highest it has seen,
    #: and refuses lower ones, is safe from a worker that was paused and lost the job; 0 on brokers
    #: that have none.
    fence: int = 0

    def __bool__(self) -> bool:
        return bool(self.id)

    @property
    def cancelled(self) -> bool:
        """Whether somebody wants the job to stop. Tidy up and return, or call on and be stopped."""
        return False

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the job is.

        :param done: Units of work done.
        :param total: Units of work in all; without it the page shows activity, not a bar.
        :param message: What it does now; the one before stays if not given.
        :raises JobCancelled: Somebody has cancelled the job.
        """

    def log(self, text: object) -> None:
        """Add a line to the log on the job page.

        :raises JobCancelled: Somebody has cancelled the job.
        """

    def track(
        self, items: t.Iterable[T], message: str = "", total: float | None = None
    ) -> t.Iterator[T]:
        """Iterate over ``items`` and say how far it is, as ``rich.track`` and ``tqdm`` do.

        :param total: How many there are; ``len(items)`` where that is known.
        :raises JobCancelled: Somebody has cancelled the job.
        """
        if total is None:
            try:
                total = len(items)  # type: ignore[arg-type]
            except TypeError:
                total = None
        self.progress(0, total, message)
        for done, item in enumerate(items, 1):
            yield item
            self.progress(done, total)

    def attach(self, name: str, data: bytes | str | os.PathLike[str]) -> dict[str, t.Any]:
        """Offer a file on the job page.

        :param name: Name for the download; folders in it are dropped.
        :param data: The content, or the path of a file to copy.
        :return: What was kept: ``name``, ``size``, ``content_type``. Fit to be returned as the
            result.
        :raises PayloadTooLarge: It is larger than ``OFFLOAD_MAX_FILE``.
        """
        return {"name": name}


class RunningJob(CurrentJob):
    """The job that a worker runs."""

    def __init__(
        self,
        job: NewJob,
        store: Store,
        files: FileStore,
        secrets: t.Iterable[str] = (),
        fence: int = 0,
    ) -> None:
        self.id = job.id
        self.job = job
        self.attempt = job.retries + 1
        self.fence = fence
        #: Whether another worker has the job by now: what is still done here is in vain.
        self.lost = False
        self._store = store
        self._files = files
        self._secrets = tuple(secrets)
        #: From when on it may report at the steady pace; for the reporter.
        self.next_report = 0.0
        self._progress = Progress()
        self._changed = self._used = False
        self._lines: deque[tuple[float, str]] = deque(maxlen=10_000)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._cancelled = False
        self._asked_at = 0.0

    @property
    def has_secrets(self) -> bool:
        return bool(self._secrets)

    def adopt(self, owners: str, locale: str, request_id: str, root_id: str) -> None:
        """Take over from the record what travels on to the jobs that this one enqueues.

        :param owners: As JSON.
        """
        self.job = dataclasses.replace(
            self.job,
            owners=owners_of(owners),
            locale=locale,
            request_id=request_id,
            root_id=self.job.root_id or root_id,
        )

    def stop(self, *, lost: bool) -> None:
        """Have it stopped at its next call; see :attr:`lost`."""
        self._cancelled = True
        self.lost = self.lost or lost

    def mask(self, text: str) -> str:
        """``text`` without the values of sensitive arguments."""
        return mask(text, self._secrets)

    @property
    def cancelled(self) -> bool:
        now = time.monotonic()
        if not self._cancelled and now - self._asked_at > CANCEL_CHECK:
            self._asked_at = now
            try:
                self._cancelled = self._store.cancel_requested(self.id)
            except StoreUnavailable:
                return False
        return self._cancelled

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        self._stop_if_cancelled()
        with self._lock:
            text = self._progress.message if message is None else self.mask(str(message))
            self._progress = Progress(done, total, text)
            self._changed = True
        self._used = True
        _reporter.wake(self)

    def say_again(self) -> None:
        """Send how far it is once more, if it has said so."""
        with self._lock:
            if self._progress == Progress():
                return
            self._changed = True
        _reporter.wake(self)

    def log(self, text: object) -> None:
        self.write(str(text))
        self._stop_if_cancelled()

    def write(self, text: str) -> None:
        """Add lines to the log; unlike :meth:`log`, never stops the task."""
        at = time.time()
        with self._lock:
            self._lines.extend((at, line) for line in self.mask(text).splitlines())
        self._used = True
        _reporter.wake(self)

    def attach(self, name: str, data: bytes | str | os.PathLike[str]) -> dict[str, t.Any]:
        self._stop_if_cancelled()
        file = self._files.save(self.id, name, data)
        self._store.patiently(lambda: self._store.attach(self.id, file))
        return file

    def _stop_if_cancelled(self) -> None:
        if self.cancelled:
            raise JobCancelled

    def flush(self) -> None:
        """Send what is new, now."""
        if not self._used:
            return
        # One sender at a time, so that lines keep their order.
        with self._sending:
            with self._lock:
                progress = self._progress if self._changed else None
                lines = list(self._lines)
                self._changed = False
                self._lines.clear()
            if progress is None and not lines:
                return
            try:
                answer = self._store.progress(self.id, progress, lines, fence=self.fence)
            except StoreUnavailable:
                with self._lock:
                    self._changed = self._changed or progress is not None
                    self._lines.extendleft(reversed(lines))
                raise
            self._cancelled = self._cancelled or answer != 0
            self.lost = self.lost or answer == -1


def owners_of(text: str) -> tuple[str, ...]:
    """Owners, as a record keeps them in JSON."""
    return tuple(json.loads(text)) if text and text != "[]" else ()


class _Reporter:
    """The thread that sends what the jobs of this process have to say."""

    def __init__(self) -> None:
        self._reset()
        # The thread does not survive a fork, and its lock may have been held by it.
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._condition = threading.Condition()
        self._waiting: set[RunningJob] = set()
        self._thread: threading.Thread | None = None

    def wake(self, job: RunningJob) -> None:
        with self._condition:
            if job in self._waiting:
                return
            self._waiting.add(job)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="offload-reporter", daemon=True
                )
                self._thread.start()
            self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                jobs = self._due()
            for job in jobs:
                job.next_report = max(time.monotonic(), job.next_report) + INTERVAL
                try:
                    job.flush()
                except StoreUnavailable:
                    with self._condition:
                        self._waiting.add(job)
            time.sleep(SPACING)

    def _due(self) -> set[RunningJob]:
        """Wait for jobs that may report now."""
        while True:
            self._condition.wait_for(lambda: self._waiting)
            now = time.monotonic()
            # One is let go ahead of its time: who keeps the pace never waits for a beat.
            rest = {job: job.next_report - INTERVAL - now for job in self._waiting}
            jobs = {job for job, seconds in rest.items() if seconds <= 0}
            if jobs:
                self._waiting -= jobs
                return jobs
            # Another job may come meanwhile, which need not wait.
            self._condition.wait(min(rest.values()))


_reporter = _Reporter()


class Running(t.Protocol):
    """What runs a job, and makes it once somebody asks for it."""

    @property
    def job(self) -> RunningJob: ...

    @property
    def has_secrets(self) -> bool: ...


_nothing = CurrentJob()
_current: ContextVar[Running | None] = ContextVar("offload_job", default=None)

#: The job that runs here; see :class:`CurrentJob`.
current_job: CurrentJob = LocalProxy(lambda: running_job() or _nothing)  # type: ignore[assignment]


def running_job() -> RunningJob | None:
    """The job that runs here, or ``None``."""
    running = _current.get()
    return None if running is None else running.job


def bind(running: Running) -> t.Callable[[], None]:
    """Make the job of ``running`` the current one; call what is returned to undo it."""
    token = _current.set(running)
    return lambda: _current.reset(token)


def mask(text: str, secrets: t.Iterable[str]) -> str:
    """``text`` with each of ``secrets`` made unreadable."""
    # Longest first, so that a secret inside a longer one leaves no rest. What is shorter than
    # three characters would take half of the text with it.
    for secret in sorted({s for s in secrets if len(s) >= 3}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


class MaskSecrets(logging.Filter):
    """Keeps the values of sensitive arguments out of what Celery writes about a job."""

    @staticmethod
    def wanted() -> bool:
        """Whether a record of this moment would not pass as it is."""
        running = _current.get()
        return running is not None and running.has_secrets

    def filter(self, record: logging.LogRecord) -> bool:
        job = running_job() if self.wanted() else None
        if job is not None:
            record.msg, record.args = job.mask(record.getMessage()), None
            if record.exc_info:
                text = logging.Formatter().formatException(record.exc_info)
                record.exc_text, record.exc_info = job.mask(text), None
        return True


class JobLogHandler(logging.Handler):
    """Copies what a task prints, which Celery turns into log records, to the page of its job."""

    def emit(self, record: logging.LogRecord) -> None:
        job = running_job()
        if job is not None:
            job.write(record.getMessage())
