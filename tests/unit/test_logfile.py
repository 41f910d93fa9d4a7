"""The log of a busy worker: lines of a group, and Celery's own two, which leave out the record."""

from __future__ import annotations

import functools
import io
import logging
import threading
import time
import typing as t
from logging.handlers import WatchedFileHandler
from pathlib import Path

import pytest
from celery.app import trace
from celery.app.log import TaskFormatter
from celery.utils.log import ColorFormatter
from celery.utils.saferepr import saferepr

from flask_offload._celery import logfile, ownlines
from flask_offload._current import MaskSecrets
from waiting import wait_until

FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
SUCCEEDED = {
    "id": "8a1c", "name": "tasks.send", "return_value": "'ü %s \\n'", "runtime": 0.01234,
    "args": "()", "kwargs": "{}",
}  # fmt: skip


@pytest.fixture(autouse=True)
def batching() -> t.Iterator[None]:
    logfile.batch()
    yield
    logfile._batching.clear()


class Loggers:
    """Celery's, in a world of their own."""

    def __init__(self, kind: type[logging.Logger], output: logging.Handler) -> None:
        self.root, self.celery = logging.Logger("root"), logging.Logger("celery")
        self.trace = kind("celery.app.trace", logging.INFO)
        self.trace.parent, self.celery.parent = self.celery, self.root
        self.output = output
        self.root.addHandler(output)
        for logger in (self.celery, self.trace):
            logger.addHandler(logging.NullHandler())
        self.trace.addFilter(MaskSecrets())

    def succeeded(self, **more: t.Any) -> None:
        context = SUCCEEDED | more
        self.trace.info(trace.LOG_SUCCESS, context, extra={"data": context})

    @property
    def short(self) -> bool:
        """Whether the last line took the short way."""
        way = self.trace._way if isinstance(self.trace, ownlines.ShortLogger) else None
        return way is not None and way.handler is not None


@pytest.fixture
def ours(tmp_path: Path) -> t.Iterator[Loggers]:
    handler = logfile.BatchedFile(str(tmp_path / "worker.log"))
    handler.setFormatter(ColorFormatter(FORMAT, use_color=False))
    yield Loggers(ownlines.ShortLogger, handler)
    handler.close()


def lines(loggers: Loggers) -> list[str]:
    loggers.output.flush()
    return Path(t.cast("t.Any", loggers.output).baseFilename).read_text().splitlines()


class Seen(logging.Handler):
    """A user's."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.mark.parametrize(
    ("form", "datefmt", "short"),
    [
        (FORMAT, None, True),
        ("%(asctime)-30s|%(levelno)03d %(name)s %(process)d %(message)-120s|", None, True),
        ("%(asctime)s %(message)s", "%H:%M", True),
        ("%(message)s", None, True),
        ("%(asctime)s %(threadName)s %(module)s.%(funcName)s %(message)s", None, False),
    ],
)
def test_the_text_is_that_of_celery_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, datefmt: str | None, short: bool
) -> None:
    outputs = (
        WatchedFileHandler(tmp_path / "a", encoding="utf-8"),
        logfile.BatchedFile(str(tmp_path / "b")),
    )
    kinds: list[type[logging.Logger]] = [logging.Logger, ownlines.ShortLogger]
    for kind, output in zip(kinds, outputs, strict=True):
        output.setFormatter(ColorFormatter(form, datefmt=datefmt, use_color=True))
        loggers = Loggers(kind, output)
        for moment in (1.7e9, 1.7e9 + 0.25, 1.7e9 + 0.999, 1.7e9 + 1, 1.7e9 + 86400.5):
            monkeypatch.setattr(time, "time", lambda moment=moment: moment)
            # Newer Pythons ask for this one.
            monkeypatch.setattr(time, "time_ns", lambda moment=moment: int(moment * 1e9))
            loggers.succeeded()
            assert loggers.short == (short and output is outputs[1])
            loggers.trace.warning("A warning: %s", "x")
            loggers.trace.info("No job at all: %d", 1)
            loggers.trace.info(trace.LOG_IGNORED, {"id": "1", "name": "x", "description": "y"})
        output.close()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_text().count("succeeded in 0.01234s: 'ü %s \\n'") == 5


def wrapped(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    """As those do that watch errors and performance."""
    original = logging.Logger.callHandlers

    @functools.wraps(original)
    def watched(logger: logging.Logger, record: logging.LogRecord) -> None:
        seen.emit(record)
        original(logger, record)

    monkeypatch.setattr(logging.Logger, "callHandlers", watched)


@pytest.mark.parametrize("where", ["trace", "celery", "root"])
def test_a_handler_sees_every_record_from_the_first_after_it_was_added(
    ours: Loggers, where: str
) -> None:
    ours.succeeded()
    assert ours.short
    seen = Seen()
    getattr(ours, where).addHandler(seen)
    ours.succeeded(id="next")
    (record,) = seen.records
    assert record.__dict__["data"]["id"] == "next"
    assert (record.funcName, record.filename) == ("succeeded", Path(__file__).name)
    assert record.threadName == threading.current_thread().name
    getattr(ours, where).removeHandler(seen)
    ours.succeeded(id="last")
    assert ours.short
    assert len(seen.records) == 1
    assert [line.split("[")[2][:4] for line in lines(ours)] == ["8a1c", "next", "last"]


@pytest.mark.parametrize("where", ["trace", "output"])
def test_a_filter_is_asked_from_the_first_line_after_it_was_added(
    ours: Loggers, where: str
) -> None:
    ours.succeeded()
    asked: list[logging.LogRecord] = []

    def no(record: logging.LogRecord) -> bool:
        asked.append(record)
        return False

    getattr(ours, where).addFilter(no)
    ours.succeeded()
    assert len(asked) == 1
    assert len(lines(ours)) == 1


def test_a_formatter_and_a_level_count_from_the_first_line(ours: Loggers) -> None:
    ours.succeeded()
    ours.output.setFormatter(TaskFormatter("%(task_id)s %(message)s", use_color=False))
    ours.succeeded()
    ours.output.setLevel(logging.WARNING)
    ours.succeeded()
    ours.trace.setLevel(logging.ERROR)
    ours.trace.warning("not this")
    assert len(lines(ours)) == 2
    assert lines(ours)[1].startswith("??? Task tasks.send[8a1c] succeeded")


def test_a_logger_that_does_not_propagate_has_nothing_to_say(ours: Loggers) -> None:
    ours.succeeded()
    ours.trace.propagate = False
    ours.succeeded()
    assert len(lines(ours)) == 1


def test_what_wraps_the_logging_itself_sees_every_record(
    ours: Loggers, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen()
    wrapped(monkeypatch, seen)
    ours.succeeded()
    assert not ours.short
    assert [record.getMessage()[:4] for record in seen.records] == ["Task"]
    assert len(lines(ours)) == 1


def test_a_factory_of_records_makes_them(ours: Loggers) -> None:
    made: list[t.Any] = []

    def factory(*args: t.Any, **more: t.Any) -> logging.LogRecord:
        made.append(args)
        return logging.LogRecord(*args, **more)

    logging.setLogRecordFactory(factory)
    try:
        ours.succeeded()
    finally:
        logging.setLogRecordFactory(logging.LogRecord)
    assert not ours.short
    assert len(made) == 1


def test_handlers_of_one_file_keep_the_order_and_lose_nothing(
    ours: Loggers, tmp_path: Path
) -> None:
    """As Celery has it: one for the tasks' own loggers, one for all others."""
    task = logging.Logger("celery.task", logging.INFO)
    other = logfile.BatchedFile(str(tmp_path / "worker.log"))
    other.setFormatter(logging.Formatter("%(message)s"))
    task.addHandler(other)

    def work(thread: int) -> None:
        for n in range(500):
            ours.succeeded(id=f"{thread}-{n}-a")
            task.info("[x] [%d-%d-b]", thread, n)
            ours.succeeded(id=f"{thread}-{n}-c")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [line.rpartition("[")[2].partition("]")[0] for line in lines(ours)]
    assert ours.short
    for n in range(8):
        mine = [word for word in found if word.startswith(f"{n}-")]
        assert mine == [f"{n}-{i}-{x}" for i in range(500) for x in "abc"]
    other.close()


def test_lines_wait_for_each_other_and_a_warning_for_nobody(ours: Loggers, tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    ours.succeeded()
    assert len(path.read_text().splitlines()) == 1
    ours.output.flush()  # from here on, a moment
    ours.succeeded()
    ours.succeeded()
    ours.trace.warning("now")
    assert len(path.read_text().splitlines()) == 4
    ours.succeeded()
    wait_until(lambda: len(path.read_text().splitlines()) == 5)


def test_a_file_that_is_moved_away_is_opened_anew(ours: Loggers, tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    for n in range(3):
        ours.succeeded(id=f"old{n}")
    ours.output.flush()
    path.rename(tmp_path / "worker.log.1")
    for n in range(3):
        ours.succeeded(id=f"new{n}")
    wait_until(lambda: path.exists() and path.read_text().count("new") == 3)
    assert (tmp_path / "worker.log.1").read_text().count("old") == 3


def test_what_cannot_be_written_is_told_and_not_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    handler = logfile.BatchedFile(str(folder / "worker.log"))
    handler.setFormatter(ColorFormatter(FORMAT, use_color=False))
    loggers = Loggers(ownlines.ShortLogger, handler)
    loggers.succeeded()
    folder.rename(tmp_path / "gone")
    handler.flush()
    loggers.succeeded()
    told = ""

    def is_told() -> bool:
        nonlocal told
        told += capsys.readouterr().err
        return "FileNotFoundError" in told

    wait_until(is_told)
    wait_until(lambda: not handler._target.lines)
    folder.mkdir()
    loggers.trace.warning("It is back.")
    assert (folder / "worker.log").read_text().count("\n") == 1
    handler.close()


def test_after_the_end_a_line_waits_for_nobody(ours: Loggers, tmp_path: Path) -> None:
    ours.succeeded()
    ours.output.close()
    ours.succeeded()
    ours.succeeded()
    assert (tmp_path / "worker.log").read_text().count("succeeded") == 3


def test_a_stream_may_be_exchanged() -> None:
    first, second = io.StringIO(), io.StringIO()
    one, two = logfile.BatchedStream(first), logfile.BatchedStream(first)
    one.handle(logging.makeLogRecord({"msg": "a", "levelno": logging.INFO}))
    two.handle(logging.makeLogRecord({"msg": "b", "levelno": logging.INFO}))
    one.setStream(second)
    one.handle(logging.makeLogRecord({"msg": "c", "levelno": logging.INFO}))
    two.handle(logging.makeLogRecord({"msg": "d", "levelno": logging.INFO}))
    one.flush()
    two.flush()
    assert (first.getvalue(), second.getvalue()) == ("a\nb\nd\n", "c\n")


@pytest.mark.parametrize(
    "value", [None, True, 0, -7, 10**80, 0.1, 1e300, float("nan"), "it's", ["a", 1], 2j]
)
@pytest.mark.parametrize("limit", [None, 1024, 40, 3, 1])
def test_a_result_is_shown_as_by_celery(value: t.Any, limit: int | None) -> None:
    assert ownlines.shown(value, limit) == saferepr(value, limit)
