"""A call that takes the short way gives what it gives on the long way: record, message, error."""

from __future__ import annotations

import typing as t

import pytest
from celery import signals
from flask import Flask

import servers
from flask_offload import EnqueueError, NotSerializable, Offload, PayloadTooLarge
from flask_offload._celery import template
from ways import Both

if t.TYPE_CHECKING:
    from conftest import System


@pytest.fixture
def app(make_system: t.Callable[..., System], valkey: servers.Valkey) -> Flask:
    app = make_system(valkey.url).app(OFFLOAD_MAX_PAYLOAD=10_000)
    declare(app.extensions["offload"].celery)
    return app


def declare(celery: t.Any) -> None:
    @celery.task(name="t.plain")
    def plain(*args: t.Any, **kwargs: t.Any) -> None: ...

    @celery.task(name="t.secret", sensitive=("password",), title="Of {user}")
    def secret(user: str, password: str = "", /, *rest: str) -> None: ...

    @celery.task(name="t.titled", title="{a} and {b}", bind=True)
    def titled(self: t.Any, a: int, b: int = 2) -> None: ...

    @celery.task(
        name="t.set", default_queue="slow", default_priority=4, time_limit=9, soft_time_limit=8.5,
        ignore_result=True, max_retries=None, title="Fixed",
    )  # fmt: skip
    def with_options(a: int = 0) -> None: ...

    @celery.task(name="t.of_celery", typing=False, max_retries=0)
    def of_celery(a: int = 0) -> None: ...


def both_of(app: Flask, patch: pytest.MonkeyPatch) -> Both:
    return Both(app.extensions["offload"].celery, (template, "enqueue"), patch)


@pytest.fixture
def both(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Both:
    return both_of(app, monkeypatch)


ARGUMENTS: list[tuple[str, tuple[t.Any, ...], dict[str, t.Any]]] = [
    ("t.plain", (), {}),
    ("t.plain", (1, -2.5, None, True, float("inf"), 10**30), {}),
    ("t.plain", ("a", 'it\'s "so"', "back\\slash", "tab\t", "\x00"), {"a": "b'c", "d": 1}),
    ("t.plain", ("é", "漢" * 300), {"ü": "ß"}),
    ("t.plain", ("x" * 200, "y" * 201), {}),
    ("t.plain", ("x" * 200,) * 8, {}),
    ("t.plain", ([1, {"a": [2]}], (3,), {}), {"more": {"b": {"c": {"d": {"e": 1}}}}}),
    ("t.plain", ([1] * 500,), {}),
    ("t.secret", ("ada", "hunter2", "rest"), {}),
    ("t.secret", ("ada",), {}),
    ("t.titled", (1,), {}),
    ("t.titled", (1,), {"b": "x"}),
    ("t.set", (), {}),
    ("t.set", (1,), {}),
    ("t.of_celery", (1, 2, 3), {}),
]
OPTIONS: list[dict[str, t.Any]] = [
    {"queue": "slow"}, {"priority": 3}, {"priority": 0}, {"countdown": 60}, {"countdown": 0},
    {"countdown": 1.5, "queue": "slow", "priority": 9}, {"time_limit": 5, "soft_time_limit": 4.5},
    {"ignore_result": True}, {"ignore_result": False}, {"queue": None},
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "kwargs"), ARGUMENTS)
def test_arguments(both: Both, name: str, args: t.Any, kwargs: t.Any) -> None:
    task = both.celery.tasks[name]
    short, long = both(lambda: task.delay(*args, **kwargs))
    assert short == long
    assert both.short == 1


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["t.plain", "t.set", "t.of_celery"])
def test_options(both: Both, name: str, options: dict[str, t.Any]) -> None:
    task = both.celery.tasks[name]
    short, long = both(lambda: task.apply_async((1,), {}, **options))
    assert short == long
    assert both.short == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"countdown": -1}, None),
        ({"countdown": 10**12}, Exception),
        ({"priority": "high"}, Exception),
        ({"priority": True}, None),
        ({"expires": 60}, None),
        ({"shadow": "other"}, None),
        ({"headers": {"mine": 1}}, None),
        ({"compression": "zlib"}, None),
        ({"serializer": "yaml"}, Exception),
        ({"link": "t.plain"}, None),
        ({"time_limit": 1, "soft_time_limit": 2}, None),
        ({"queue": ["a"]}, Exception),
        ({"no": "such"}, None),
    ],
)
def test_other_options_take_the_long_way(both: Both, options: t.Any, error: t.Any) -> None:
    task = both.celery.tasks["t.plain"]
    short, long = both(lambda: task.apply_async((1,), {}, **options))
    if options.keys() & {"expires", "countdown"}:  # the message tells the time
        assert short[0] == long[0]
    else:
        assert short == long
    assert both.short == 0 or options.keys() == {"time_limit", "soft_time_limit"}
    assert error is None or issubclass(short[0], error)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "error"),
    [
        ("t.titled", (1, 2, 3), {}, TypeError),
        ("t.titled", (), {"c": 1}, TypeError),
        ("t.plain", (object(),), {}, NotSerializable),
        ("t.plain", (), {"a": {1: {2: object()}}}, NotSerializable),
        ("t.plain", ("x" * 10_000,), {}, PayloadTooLarge),
    ],
)
def test_errors(both: Both, name: str, args: t.Any, kwargs: t.Any, error: t.Any) -> None:
    task = both.celery.tasks[name]
    short, long = both(lambda: task.apply_async(args, kwargs))
    assert short == long
    assert short[0] is error


def test_largest_payload(both: Both) -> None:
    """The bound is at the same byte."""
    task = both.celery.tasks["t.set"]
    for size in range(9_850, 9_950):
        short, long = both(lambda: task.delay("x" * size))  # noqa: B023
        assert short == long
        if short[0] is PayloadTooLarge:
            break
    assert short[0] is PayloadTooLarge
    assert both.short > 0


def test_in_a_request(both: Both, app: Flask) -> None:
    headers = {"X-Request-ID": "r-1"}
    with app.test_request_context(headers=headers):
        short, long = both(lambda: both.celery.tasks["t.plain"].delay(1))
    assert short == long
    assert short[0]["request_id"] == "r-1"
    assert short[0]["owners"] != "[]"
    assert both.short == 1


def test_in_a_task(both: Both, app: Flask) -> None:
    """As a worker calls it, up to the place where the call returns."""
    outer = both.celery.tasks["t.titled"]
    outer.push_request(
        id="outer",
        root_id="root",
        children=[],
        called_directly=False,
        delivery_info={"priority": 1},
    )
    from celery._state import _task_stack

    _task_stack.push(outer)
    try:
        short, long = both(lambda: both.celery.tasks["t.plain"].delay(1))
        children = [child.id for child in outer.request.children]
    finally:
        _task_stack.pop()
        outer.pop_request()
    assert short == long
    assert (short[1]["headers"]["root_id"], short[1]["headers"]["parent_id"]) == ("root", "outer")
    assert both.short == 1
    assert len(children) == 2


def test_same_id_and_unique(both: Both) -> None:
    task = both.celery.tasks["t.plain"]
    first = task.apply_async((1,), task_id="mine")
    assert task.apply_async((2,), task_id="mine").id == first.id == "mine"
    assert first.record.args == [1]
    one = task.options(unique="u").delay(1)
    assert task.options(unique="u").delay(2).id == one.id
    assert one.record.args == [1]


def test_publish_signals_are_sent(both: Both) -> None:
    heard: list[t.Any] = []

    def listen(sender: t.Any = None, headers: t.Any = None, **_: t.Any) -> None:
        heard.append(sender)
        if headers:
            headers["mine"] = 1

    task = both.celery.tasks["t.plain"]
    task.delay(0)
    for signal in (signals.before_task_publish, signals.after_task_publish):
        signal.connect(listen)
        try:
            job = task.delay(1)
        finally:
            signal.disconnect(listen)
        assert heard.pop() == "t.plain"
        envelope = both.store.call("HGET", both.store.keys.job(job.id), "envelope")
        assert ("mine" in envelope) == (signal is signals.before_task_publish)
    assert not heard


def test_settings_are_those_of_the_moment(both: Both) -> None:
    task = both.celery.tasks["t.plain"]
    task.delay(1)
    both.celery.conf.task_always_eager = True
    assert task.delay(1).state == "SUCCESS"
    both.celery.conf.task_always_eager = False
    task.title = "Another"
    assert task.delay(1).record.title == "Another"
    task.default_queue = "another"
    assert task.delay(1).record.queue == "another"
    both.celery.conf.task_default_queue = "celery"


def test_routes_and_methods_of_the_user(valkey: servers.Valkey) -> None:
    app = Flask("routed")
    app.config.update(
        OFFLOAD_URL=valkey.url, OFFLOAD_NAMESPACE="routed", SECRET_KEY="only for tests"
    )
    app.config["CELERY"] = {
        "task_routes": {"t.plain": {"queue": "routed"}, "t.titled": {"priority": 3}}
    }
    celery = Offload(app).celery
    declare(celery)

    class Base(celery.Task):  # type: ignore[misc]
        def apply_async(self, args: t.Any = None, kwargs: t.Any = None, **options: t.Any) -> t.Any:
            return super().apply_async((*args, "by the user"), kwargs, **options)

    @celery.task(name="t.based", base=Base)
    def based(*args: t.Any) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        both = both_of(app, patch)
        short, long = both(lambda: celery.tasks["t.plain"].delay(1))
        assert short == long
        assert (short[0]["queue"], both.short) == ("routed", 1)
        short, long = both(lambda: celery.tasks["t.titled"].delay(1))
        assert short == long
        assert (short[1]["properties"]["priority"], both.short) == (3, 1)
        short, long = both(lambda: based.delay(1))
        assert short == long
        assert short[0]["args"] == '[1, "by the user"]'


def test_many(both: Both, app: Flask) -> None:
    task = both.celery.tasks["t.plain"]
    jobs = task.enqueue_many((n, "x" * 6_000) for n in range(450))
    line = f"{both.store.keys.prefix}queue:celery"
    assert both.store.call("ZRANGE", line, 0, -1) == [job.id for job in jobs]
    records = both.store.get_many([job.id for job in jobs])
    assert [record.args[0] for record in records] == list(range(450))


def test_some_of_many(make_system: t.Callable[..., System], own_valkey: servers.Valkey) -> None:
    app = make_system(own_valkey.url).app(OFFLOAD_PUBLISH_TIMEOUT=1)
    task = app.extensions["offload"].celery.tasks["sample.add"]
    task.delay(0)
    with own_valkey.client() as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 400_000)
    with pytest.raises(EnqueueError, match=r"[1-9]\d* of 3000 jobs were accepted.*maxmemory"):
        task.enqueue_many((n,) for n in range(3000))
