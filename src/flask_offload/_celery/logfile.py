"""Log lines of a busy worker reach their file several at a time.

Each write lets go of the interpreter, and with many threads it takes long to get it back: a worker
that logs two lines for each of a thousand jobs a second would do little else. A line is written at
once where none was a moment ago, or if it is a warning; else a thread writes it with those that
come after it. A worker that is killed loses the lines of that moment. Only workers with a lane do
so: the processes of a prefork pool end without a word.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import typing as t
import weakref
from contextlib import contextmanager, suppress
from logging.handlers import WatchedFileHandler

__all__ = ["Batched", "BatchedFile", "BatchedStream", "batch", "batched", "batching"]

#: Seconds for which lines wait for each other.
MOMENT = 0.02

_batching = threading.Event()
os.register_at_fork(after_in_child=_batching.clear)
#: Whether lines of this process are written several at a time.
batching = _batching.is_set


def batch() -> None:
    """From here on, write lines of this process several at a time."""
    _batching.set()


@contextmanager
def batched() -> t.Iterator[None]:
    """Write the lines of this process several at a time, and what waits at the end of this."""
    _batching.set()
    try:
        yield
    finally:
        _batching.clear()
        _Target.write_all()


class _Target:
    """Where lines go, and those that wait: one for all handlers that write there, so that the
    lines of one do not overtake those of another.

    :param place: The name of a file, or a stream.
    """

    _all: t.ClassVar[weakref.WeakValueDictionary[t.Any, _Target]] = weakref.WeakValueDictionary()

    def __init__(self, place: t.Any) -> None:
        self.place = place  # Kept, so that no other has its id.
        self.lines: list[str] = []
        #: Of those that write. To add a line takes no lock: a writer waits for the interpreter
        #: while it has this one, and with it would all threads that have something to say.
        self.lock: t.Any = threading.RLock()
        self._written_at = 0.0
        self._wanted = threading.Event()
        self._writer: threading.Thread | None = None

    @classmethod
    def of(cls, place: t.Any) -> _Target:
        """The one of a place."""
        return cls._all.setdefault(place if isinstance(place, str) else id(place), cls(place))

    def write(self, put: t.Callable[[str], None]) -> None:
        """Write what waits."""
        with self.lock:
            self._written_at = time.monotonic()
            count = len(self.lines)
            try:
                if count:
                    put("".join(self.lines[:count]))
            finally:
                # Of this very list, as others add to it meanwhile.
                del self.lines[:count]

    def write_soon(self, handler: Batched) -> None:
        """Write what waits, with what comes after it, unless the last time was a while ago."""
        if self._wanted.is_set():
            return
        if time.monotonic() - self._written_at > MOMENT and self.lock.acquire(blocking=False):
            try:
                handler.write()
            finally:
                self.lock.release()
            return
        self._last = handler
        if self._writer is None:
            self._start()
        self._wanted.set()

    def _start(self) -> None:
        with self.lock:
            if self._writer is None:
                writer = threading.Thread(target=self._run, name="offload-log", daemon=True)
                writer.start()
                self._writer = writer

    def _run(self) -> None:
        wanted = self._wanted
        while True:
            wanted.wait()
            time.sleep(MOMENT)
            # First this: who adds a line too late for the look sees that nobody wants one.
            wanted.clear()
            self._write_last()

    @classmethod
    def write_all(cls) -> None:
        for target in list(cls._all.values()):
            if target.lines:
                target._write_last()

    def _write_last(self) -> None:
        handler = self._last
        try:
            handler.write()
        except Exception:
            handler.handleError(_unwritten())

    def forked(self) -> None:
        """Forget what is the parent's: the thread, and the lines."""
        self.lines.clear()
        self._wanted, self._writer = threading.Event(), None

    @classmethod
    def all_forked(cls) -> None:
        for target in list(cls._all.values()):
            target.forked()


os.register_at_fork(after_in_child=_Target.all_forked)


def _unwritten() -> logging.LogRecord:
    """For who tells of an error, where there is no record."""
    return logging.makeLogRecord({"msg": "Log lines were not written."})


class Batched(logging.StreamHandler[t.Any]):
    """A handler whose lines wait for each other for a moment."""

    _target: _Target
    _ended = False

    def _aim(self, place: t.Any) -> None:
        self._target = _Target.of(place)
        self.lock = self._target.lock

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the lock, which is for those that write."""
        verdict: t.Any = self.filter(record)
        if verdict:
            self.emit(verdict if isinstance(verdict, logging.LogRecord) else record)
        return bool(verdict)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
        else:
            self.add(line, record)

    def add(self, line: str, record: logging.LogRecord | None = None) -> None:
        """Have a line written, soon or at once.

        :param record: Its record, if it has one.
        """
        urgent = record is not None and record.levelno >= logging.WARNING
        try:
            self._target.lines.append(line + self.terminator)
            if urgent or self._ended or not batching():
                self.write()
            else:
                self._target.write_soon(self)
        except Exception:
            self.handleError(record or _unwritten())

    def write(self) -> None:
        """Write what waits, of all handlers of this place."""
        self._target.write(self._put)

    def _put(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()

    def flush(self) -> None:
        """Write what waits; for who ends."""
        with suppress(OSError, ValueError):  # It was closed, with nobody left to tell.
            self.write()

    def close(self) -> None:
        # Whoever writes what waits may have ended, too.
        self._ended = True
        super().close()


class BatchedStream(Batched):
    """To a stream that is open."""

    def __init__(self, stream: t.Any) -> None:
        super().__init__(stream)
        self._aim(stream)

    def setStream(self, stream: t.Any) -> t.Any:  # noqa: N802
        before = super().setStream(stream)
        self._aim(self.stream)
        return before


class BatchedFile(Batched, WatchedFileHandler):
    """To a file, which may be moved away (logrotate)."""

    def __init__(self, path: str) -> None:
        WatchedFileHandler.__init__(self, path, encoding="utf-8")
        self._aim(self.baseFilename)

    def _put(self, text: str) -> None:
        self.reopenIfNeeded()
        if self.stream is None:
            self.stream = self._open()
        super()._put(text)
