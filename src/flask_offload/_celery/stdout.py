"""What tasks print, as whole lines."""

from __future__ import annotations

import logging
import sys
import threading
import typing as t

from celery.app.log import Logging
from celery.utils.log import LoggingProxy

from .logfile import BatchedFile, BatchedStream

__all__ = ["LineLogging"]

LIMIT = 10_000


class LineProxy(LoggingProxy):  # type: ignore[misc]
    """Logs a line when it is complete: ``print("a", 1)`` writes in three pieces, and Celery's
    own proxy logs each of them as a line."""

    def __init__(self, logger: logging.Logger, loglevel: t.Any = None) -> None:
        super().__init__(logger, loglevel)
        self._rest = threading.local()

    def write(self, data: str) -> int:
        *lines, rest = (getattr(self._rest, "text", "") + str(data)).split("\n")
        if len(rest) > LIMIT:
            lines.append(rest)
            rest = ""
        self._rest.text = rest
        for line in lines:
            super().write(line)
        return len(data)

    def flush(self) -> None:
        rest, self._rest.text = getattr(self._rest, "text", ""), ""
        if rest:
            super().write(rest)


class LineLogging(Logging):  # type: ignore[misc]
    """Celery's logging, with whole lines of standard output, written several at a time."""

    def _detect_handler(self, logfile: t.Any = None) -> logging.Handler:
        logfile = sys.__stderr__ if logfile is None else logfile
        return BatchedStream(logfile) if hasattr(logfile, "write") else BatchedFile(str(logfile))

    def redirect_stdouts_to_logger(
        self,
        logger: logging.Logger,
        loglevel: t.Any = None,
        stdout: bool = True,
        stderr: bool = True,
    ) -> LoggingProxy:
        proxy = LineProxy(logger, loglevel)
        if stdout:
            sys.stdout = t.cast("t.TextIO", proxy)
        if stderr:
            sys.stderr = t.cast("t.TextIO", proxy)
        return proxy
