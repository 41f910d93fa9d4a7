"""The two lines that Celery writes for each job, without a record that nobody would look at.

"Task ... received" and "Task ... succeeded" are most of what a busy worker logs, and most of what a
line costs is its record: who called, from which thread, by which class. Where the line goes nowhere
but to a handler that Celery itself has set up, in a format that says nothing of that, it is put
together directly, with the same text. Whoever has a handler, a filter, a formatter or a kind of
record of his own anywhere on its way gets all records, from the moment he has it.
"""

from __future__ import annotations

import logging
import os
import time
import types
import typing as t

from celery.utils.log import ColorFormatter
from celery.utils.saferepr import saferepr

from .._current import MaskSecrets
from .logfile import Batched, BatchedFile, BatchedStream, batching

__all__ = ["shorten", "shown"]

#: Who writes these lines.
LOGGERS = "celery.worker.strategy", "celery.app.trace"
#: What others like to wrap, and where it is from.
METHODS = {
    logging.Logger: "info isEnabledFor _log makeRecord handle filter callHandlers".split(),
    logging.LogRecord: ["__init__", "getMessage"],
    logging.PercentStyle: ["format", "_format"],
    Batched: ["handle", "filter", "emit", "format", "add"],
    ColorFormatter: ["format", "formatTime", "formatMessage", "usesTime"],
}
MODULES = {"logging", ColorFormatter.__module__, Batched.__module__}


#: What is shown by its text. Celery's own function takes longest for the shortest of them.
SIMPLE = frozenset({type(None), bool, int, float})


def shown(value: t.Any, limit: int | None) -> str:
    """A result as in Celery's line."""
    if type(value) in SIMPLE:
        text = str(value)
        if limit is None or len(text) < limit:
            return text
    return t.cast("str", saferepr(value, limit))


def shorten() -> None:
    """From here on, write such lines of this process the short way where there is one."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if type(logger) is logging.Logger:
            logger.__class__ = ShortLogger


def _forked() -> None:
    # What was found out before says the name of the parent.
    for name in LOGGERS:
        vars(logging.getLogger(name)).pop("_way", None)


os.register_at_fork(after_in_child=_forked)


class ShortLogger(logging.Logger):
    """A logger that makes no record of a job's line if nobody would see it."""

    _way: _Way | None = None

    def info(self, msg: object, *args: object, **more: t.Any) -> None:
        if not self.isEnabledFor(logging.INFO):
            return
        if len(args) == 1 and len(more) == 1 and "extra" in more and batching():
            way = self._way
            now = time.time()
            if way is None or int(now) != way.second or way.now() != way.seen:
                self._way = way = _Way(self, int(now))
            if way.handler is not None:
                line = way.line(msg, args[0], more["extra"], now)
                if line is not None:
                    way.handler.add(line)
                    return
        # The caller is that of this method.
        more["stacklevel"] = more.get("stacklevel", 1) + 1
        super().info(msg, *args, **more)


class _Way:
    """What lies between a logger and the file, as it was at one moment.

    :param second: What is true in one second holds for it: the time, and what hardly ever changes.
    """

    def __init__(self, logger: logging.Logger, second: int) -> None:
        self.second = second
        self.handler: Batched | None = None
        self._masks = bool(logger.filters)
        self._chain = [logger]
        while self._chain[-1].propagate and self._chain[-1].parent is not None:
            self._chain.append(self._chain[-1].parent)
        found = [handler for each in self._chain for handler in each.handlers]
        self._handlers = [each for each in found if type(each) is not logging.NullHandler]
        self.seen = self.now()
        if self._is_plain():
            self.handler = t.cast("Batched", self._handlers[0])

    def now(self) -> list[t.Any]:
        """All that decides whether a line may take the short way, and may change at any time."""
        seen: list[t.Any] = []
        for logger in self._chain:
            seen.append(logger.propagate)
            seen.append(logger.parent)
            seen += logger.handlers
        seen += self._chain[0].filters
        for handler in self._handlers:
            seen.append(handler.level)
            seen.append(handler.formatter)
            seen += handler.filters
        return seen

    def line(self, msg: object, context: t.Any, extra: t.Any, now: float) -> str | None:
        """The line of a record, if it is one of those; what is wrong with it, the record tells."""
        if type(context) is not dict or len(extra) != 1 or extra.get("data") is not context:
            return None
        if self._masks and MaskSecrets.wanted():
            return None
        values = self._values.copy()
        if self._milliseconds:
            since = int((now - self.second) * 1000)
            values["asctime"] = self._milliseconds % (values["asctime"], since)
        try:
            values["message"] = str(msg) % context
            return self._format % values
        except Exception:
            return None

    def _is_plain(self) -> bool:
        """Whether a line goes to one handler of Celery's, as text, and nowhere else."""
        logger = self._chain[0]
        others = [each for each in logger.filters if type(each) is not MaskSecrets]
        if others or len(self._handlers) != 1:
            return False
        handler, level = self._handlers[0], logging.getLevelName(logging.INFO)
        if type(handler) not in (BatchedFile, BatchedStream) or handler.filters:
            return False
        formatter: t.Any = handler.formatter
        if type(formatter) is not ColorFormatter or formatter.colors.get(level):
            return False
        style = formatter._style
        if type(style) is not logging.PercentStyle or getattr(style, "_defaults", None):
            return False
        if handler.level > logging.INFO or logging.getLogRecordFactory() is not logging.LogRecord:
            return False
        if not _untouched(logger, handler, formatter, style):
            return False
        record = logging.makeLogRecord({"name": logger.name, "levelname": level, "message": ""})
        fields = "name", "levelname", "process", "processName", "message"
        self._values = {field: getattr(record, field) for field in fields}
        self._values["levelno"] = logging.INFO
        self._values["asctime"] = time.strftime(
            formatter.datefmt or formatter.default_time_format, formatter.converter(self.second)
        )
        self._milliseconds = None if formatter.datefmt else formatter.default_msec_format
        self._format = style._fmt
        try:
            _ = self._format % self._values
        except Exception:
            return False  # It tells more of its record.
        return True


def _untouched(*objects: object) -> bool:
    """Whether nobody has put anything of his own around what a record goes through."""
    for kind, names in METHODS.items():
        for name in names:
            method = getattr(kind, name)
            # A wrapper may say that it is what it wraps, but has the names of its own module.
            if type(method) is not types.FunctionType:
                return False
            if method.__globals__["__name__"] not in MODULES:
                return False
            if any(name in vars(each) for each in objects):
                return False
    return True
