"""Log lines of a busy worker reach their file several at a time.

Each write lets go of the interpreter, and with many threads it takes long to get it back: a worker
that logs two lines for each of a thousand jobs a second would do little else. A line is written at
once where none was a moment ago, or if it is a warning; else a thread writes it with those that
come after it. A worker that is killed loses the lines of that moment. Only workers with a lane do
so: the processes of a prefork pool end without a word.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import typing as t
from logging.handlers import WatchedFileHandler

__all__ = ["BatchedFile", "BatchedStream", "batch"]

#: Seconds for which lines wait for each other.
MOMENT = 0.02

_batching = threading.Event()
os.register_at_fork(after_in_child=_batching.clear)


def batch() -> None:
    """From here on, write lines of this process several at a time."""
    _batching.set()


class _Batched(logging.StreamHandler[t.Any]):
    """A handler whose lines wait for each other for a moment."""

    def _prepare(self) -> None:
        self._lines: list[str] = []
        self._written_at = 0.0
        self._ready = threading.Event()
        self._writer: threading.Thread | None = None
        os.register_at_fork(after_in_child=self._forked)
        atexit.register(self.flush)

    def _forked(self) -> None:
        # The thread is the parent's, and so are the lines.
        self._lines, self._writer, self._ready = [], None, threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + self.terminator
            # The caller holds the lock of this handler.
            self._lines.append(line)
            now = time.monotonic()
            urgent = record.levelno >= logging.WARNING or not _batching.is_set()
            if urgent or now - self._written_at > MOMENT:
                self._written_at = now
                self._write()
            elif len(self._lines) == 1:
                self._write_soon()
        except Exception:
            self.handleError(record)

    def _write_soon(self) -> None:
        if self._writer is None:
            self._writer = threading.Thread(target=self._run, name="offload-log", daemon=True)
            self._writer.start()
        self._ready.set()

    def _run(self) -> None:
        ready = self._ready
        while True:
            ready.wait()
            ready.clear()
            time.sleep(MOMENT)
            self.flush()

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        if lines and self.stream is not None:
            self.stream.write("".join(lines))
            self.stream.flush()

    def flush(self) -> None:
        """Write what waits."""
        self.acquire()
        try:
            self._written_at = time.monotonic()
            self._write()
        except (OSError, ValueError):
            pass  # It was closed, with nobody left to tell.
        finally:
            self.release()


class BatchedStream(_Batched):
    """To a stream that is open."""

    def __init__(self, stream: t.Any) -> None:
        super().__init__(stream)
        self._prepare()


class BatchedFile(_Batched, WatchedFileHandler):
    """To a file, which may be moved away (logrotate)."""

    def __init__(self, path: str) -> None:
        WatchedFileHandler.__init__(self, path, encoding="utf-8")
        self._prepare()

    def _write(self) -> None:
        self.reopenIfNeeded()
        super()._write()
