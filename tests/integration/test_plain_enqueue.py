"""What an app enqueues that knows us by its settings only is the same on both ways: record,
message, result, error."""

from __future__ import annotations

import secrets
import typing as t
from pathlib import Path

import pytest
from celery import Celery, signals
from celery._state import _task_stack
from celery.app.task import Task
from celery.result import AsyncResult
from kombu import Queue
from kombu.exceptions import OperationalError

import plain_app
import servers
from flask_offload._celery import shortcut
from ways import Both


def anything(*args: t.Any, **kwargs: t.Any) -> None: ...


class BothPlain(Both):
    """Of an app with some tasks."""

    def __init__(self, url: str, patch: pytest.MonkeyPatch, **config: t.Any) -> None:
        self.app = plain_app.create_app(url, f"p{secrets.token_hex(4)}", **config)
        super().__init__(self.app, (shortcut, "_enqueue"), patch)

        self.app.task(name="t.any", shared=False)(anything)

        @self.app.task(name="t.two", shared=False)
        def two(a: int, b: int = 2) -> None: ...

        @self.app.task(
            name="t.set", shared=False, typing=False, time_limit=9, soft_time_limit=8.5,
            ignore_result=True,
        )  # fmt: skip
        def with_options(a: int = 0) -> None: ...

        self.task("any").delay()  # the first one shows who the app is

    def task(self, name: str) -> t.Any:
        return self.app.tasks[f"t.{name}"]


@pytest.fixture
def make(
    valkey: servers.Valkey, monkeypatch: pytest.MonkeyPatch
) -> t.Iterator[t.Callable[..., BothPlain]]:
    made: list[BothPlain] = []

    def make(**config: t.Any) -> BothPlain:
        made.append(BothPlain(valkey.url, monkeypatch, **config))
        return made[-1]

    yield make
    for both in made:
        both.app.close()


@pytest.fixture
def both(make: t.Callable[..., BothPlain]) -> BothPlain:
    return make()


ARGUMENTS: list[tuple[str, t.Any, dict[str, t.Any]]] = [
    ("any", (), {}),
    ("any", None, {}),
    ("any", [], {}),
    ("any", (1,), {}),
    ("any", [1], {}),
    ("any", [1, "a"], {}),
    ("any", (1, -2.5, None, True, float("inf"), 10**30), {}),
    ("any", ("a", 'it\'s "so"', "back\\slash", "tab\t", "\x00"), {"a": "b'c", "d": 1}),
    ("any", ("é", "漢" * 300), {"ü": "ß"}),
    ("any", ("x" * 200,) * 8, {}),
    ("any", ("x" * 50_000,), {}),
    ("any", ([1, {"a": [2]}], (3,), {}), {"more": {"b": {"c": {"d": {"e": 1}}}}}),
    ("two", (1,), {"b": "x"}),
    ("set", (1, 2, 3), {}),
]
OPTIONS: list[dict[str, t.Any]] = [
    {"queue": "slow"}, {"priority": 3}, {"priority": 0}, {"countdown": 60}, {"countdown": 0},
    {"countdown": 1.5, "queue": "slow", "priority": 9}, {"time_limit": 5, "soft_time_limit": 4.5},
    {"ignore_result": True}, {"ignore_result": False}, {"queue": None}, {"task_id": None},
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "kwargs"), ARGUMENTS)
def test_arguments(both: BothPlain, name: str, args: t.Any, kwargs: t.Any) -> None:
    short, long = both(lambda: both.task(name).apply_async(args, kwargs))
    assert short == long
    assert isinstance(short[1], dict)
    assert both.short == 1


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["any", "set"])
def test_options(both: BothPlain, name: str, options: dict[str, t.Any]) -> None:
    short, long = both(lambda: both.task(name).apply_async((1,), **options))
    assert short == long
    assert isinstance(short[1], dict)
    assert both.short == 1


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": -1}, {"countdown": 10**12}, {"priority": "high"}, {"expires": 60},
        {"shadow": "other"}, {"headers": {"mine": 1}}, {"compression": "zlib"}, {"unique": "u"},
        {"serializer": "yaml"}, {"link": "t.any"}, {"no": "such"}, {"exchange": "other"},
    ],
)  # fmt: skip
def test_other_options_take_the_long_way(both: BothPlain, options: t.Any) -> None:
    short, long = both(lambda: both.task("any").apply_async((1,), **options))
    if options.keys() & {"expires", "countdown"} and len(short) == 3:  # the message tells the time
        assert short[0] == long[0]
    else:
        assert short == long
    assert both.short == 0


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1, 2, 3), {}), ((), {"c": 1}), ((object(),), {}), ("text", {}), ((), [1])],
)
def test_errors(both: BothPlain, args: t.Any, kwargs: t.Any) -> None:
    short, long = both(lambda: both.task("two").apply_async(args, kwargs))
    assert short == long
    assert issubclass(short[0], Exception)


def test_in_a_task(both: BothPlain) -> None:
    """As a worker calls it, up to the place where the call returns."""
    outer = both.task("two")
    outer.push_request(id="outer", root_id="root", children=[], called_directly=False)
    _task_stack.push(outer)
    try:
        short, long = both(lambda: both.task("any").delay(1))
        children = len(outer.request.children)
    finally:
        _task_stack.pop()
        outer.pop_request()
    assert short == long
    assert (short[0]["root_id"], short[0]["parent_id"]) == ("root", "outer")
    assert (both.short, children) == (1, 2)


def test_an_id_of_the_callers_may_be_used_again(both: BothPlain) -> None:
    short, long = both(lambda: both.task("any").apply_async((1,), task_id="mine"))
    assert short == long
    assert both.short == 0


def test_publish_signals_are_sent(both: BothPlain) -> None:
    heard: list[t.Any] = []

    def listen(sender: t.Any = None, **_: t.Any) -> None:
        heard.append(sender)

    signals.before_task_publish.connect(listen)
    try:
        both(lambda: both.task("any").delay(1))
    finally:
        signals.before_task_publish.disconnect(listen)
    assert heard == ["t.any", "t.any"]
    assert both.short == 0


def test_settings_are_those_of_the_moment(both: BothPlain) -> None:
    task = both.task("any")
    task.delay(1)
    both.app.conf.task_always_eager = True
    assert task.delay(1).state == "SUCCESS"
    both.app.conf.task_always_eager = False
    task.ignore_result = True
    short, long = both(lambda: task.delay(1))
    assert short == long
    assert (short[1]["headers"]["ignore_result"], both.short) == (True, 1)


def test_queues_that_are_configured(make: t.Callable[..., BothPlain]) -> None:
    both = make(
        task_queues=[Queue("celery"), Queue("slow", routing_key="key")],
        task_create_missing_queues=False,
    )
    short, long = both(lambda: both.task("any").apply_async((1,), queue="slow"))
    assert short == long
    assert (short[0]["queue"], both.short) == ("slow", 1)
    short, long = both(lambda: both.task("any").apply_async((1,), queue="unknown"))
    assert short == long
    assert issubclass(short[0], LookupError)


def test_what_the_user_put_in_has_its_say(valkey: servers.Valkey) -> None:
    class Own(Task):  # type: ignore[misc]
        abstract = True

        def apply_async(self, args: t.Any = None, kwargs: t.Any = None, **options: t.Any) -> t.Any:
            return super().apply_async((*(args or ()), "by the user"), kwargs, **options)

    app = plain_app.create_app(valkey.url, f"p{secrets.token_hex(4)}")

    class Result(AsyncResult):  # type: ignore[misc]
        pass

    class WithResult(app.Task):  # type: ignore[misc]
        abstract = True

        def AsyncResult(self, task_id: str, **kwargs: t.Any) -> t.Any:  # noqa: N802
            return Result(task_id, app=app)

    own = app.task(name="t.own", shared=False, base=Own)(anything)
    other = app.task(name="t.result", shared=False, base=WithResult)(anything)
    for _ in range(3):
        job = own.delay(1)
        record = app.backend.store.get(job.id)
        assert "by the user" in str(record.args)
        assert type(other.delay(1)) is Result
    app.close()


def test_elsewhere_nothing_is_changed() -> None:
    stock = Celery("stock", broker="memory://", backend="cache+memory://", set_as_current=False)
    task = stock.task(name="t.stock", shared=False)(anything)
    task.delay()
    assert type(task._get_current_object()).apply_async is Task.apply_async
    stock.close()


def test_a_server_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's error, and the next call is accepted."""
    server = servers.Valkey(tmp_path).start()
    try:
        both = BothPlain(server.url, monkeypatch, task_publish_retry=False)
        assert both(lambda: both.task("any").delay(1))[0][0]["task"] == "t.any"
        server.stop()
        short, long = both(lambda: both.task("any").delay(1))
        assert short[0] is long[0] is OperationalError
        server.start()
        assert both.outcome(lambda: both.task("any").delay(1))[0]["task"] == "t.any"
        both.app.close()
    finally:
        server.stop()
