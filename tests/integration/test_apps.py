"""Several apps in one process: factories, threads, extensions without an app."""

from __future__ import annotations

import gc
import threading
import typing as t
import weakref

import pytest
from celery import current_app as current_celery
from celery import shared_task
from flask import Flask

from flask_offload import ConfigError, NoAppError, Offload, current_job

CONFIG = {"SECRET_KEY": "x", "OFFLOAD_URL": "redis://127.0.0.1:1"}


def make_app(name: str = "app", offload: Offload | None = None) -> Flask:
    app = Flask(name)
    app.config.update(CONFIG)
    if offload is not None:
        offload.init_app(app)
    return app


@shared_task
def whose() -> str:
    from flask import current_app

    return str(current_app.name)


def test_ten_apps_of_a_factory_each_have_their_own_closure() -> None:
    def create(number: int) -> tuple[Flask, t.Any]:
        app = make_app(f"app{number}")
        offload = Offload(app)

        @offload.task(name="number")
        def which() -> int:
            return number

        return app, which

    apps = [create(number) for number in range(10)]
    for number, (app, which) in enumerate(apps):
        celery = app.extensions["offload"].celery
        assert which() == number
        assert celery.tasks["number"]() == number
        assert [name for name in celery.tasks if not name.startswith("celery.")].count(
            "number"
        ) == 1


def test_one_extension_for_ten_apps() -> None:
    offload = Offload()

    @offload.task
    def add(a: int, b: int) -> int:
        return a + b

    apps = [make_app(f"app{number}", offload) for number in range(10)]
    with pytest.raises(NoAppError, match="create_app"):
        _ = offload.celery
    with pytest.raises(NoAppError):
        add(1, 2)
    for app in apps:
        with app.app_context():
            assert offload.celery is app.extensions["offload"].celery
            assert add(1, 2) == 3
            assert offload.celery.tasks[add.name].app is offload.celery


def test_task_declared_in_a_factory_on_a_shared_extension_is_an_error() -> None:
    offload = Offload()

    def create() -> Flask:
        app = make_app("app", offload)

        @offload.task(name="same")
        def same() -> None: ...

        return app

    create()
    with pytest.raises(ConfigError, match="declared twice"):
        create()


def test_app_context_binds_the_celery_app() -> None:
    one, two = make_app("one", Offload()), make_app("two", Offload())
    before = current_celery._get_current_object()
    with one.app_context():
        assert current_celery._get_current_object() is one.extensions["offload"].celery
        with two.app_context():
            assert current_celery._get_current_object() is two.extensions["offload"].celery
            assert whose.apply().get() == "two"
        assert current_celery._get_current_object() is one.extensions["offload"].celery
        assert whose.app is one.extensions["offload"].celery
    assert current_celery._get_current_object() is before


def test_two_apps_in_two_threads() -> None:
    apps = [make_app("one", Offload()), make_app("two", Offload())]
    barrier = threading.Barrier(2)
    seen: dict[str, list[bool]] = {"one": [], "two": []}

    def use(app: Flask) -> None:
        for _ in range(200):
            with app.app_context():
                barrier.wait(10)
                seen[app.name].append(whose.app is app.extensions["offload"].celery)

    threads = [threading.Thread(target=use, args=(app,)) for app in apps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"one": [True] * 200, "two": [True] * 200}


def test_extension_does_not_keep_its_app_alive() -> None:
    app = make_app()
    offload = Offload(app)
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None
    with pytest.raises(NoAppError):
        _ = offload.celery


def test_direct_call_has_no_second_context_and_a_job_that_does_nothing() -> None:
    app = make_app()
    offload = Offload(app)

    @offload.task
    def work() -> int:
        from flask import g

        g.count = g.get("count", 0) + 1
        current_job.log("hello")
        current_job.progress(1, 2, "half")
        assert not current_job
        assert current_job.id == ""
        assert not current_job.cancelled
        return sum(current_job.track([1, 2], "Adding"))

    with app.app_context():
        assert work() == 3
        assert work() == 3
        from flask import g

        assert g.count == 2


def test_eager_runs_in_the_context_of_the_caller() -> None:
    app = make_app()
    app.config["CELERY"] = {"task_always_eager": True}
    offload = Offload(app)

    @offload.task
    def name() -> str:
        from flask import current_app, g

        g.seen = True
        return str(current_app.name)

    assert name.delay().get() == "app"
    with app.app_context():
        from flask import g

        assert name.delay().get() == "app"
        assert g.seen


def test_base_class_of_the_users_own_keeps_its_call() -> None:
    from celery import Task

    calls: list[str] = []

    class Counting(Task):  # type: ignore[misc]
        def __call__(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
            calls.append(self.name)
            return self.run(*args, **kwargs)

    app = make_app()
    offload = Offload(app)

    @offload.celery.task(base=Counting, name="counted")
    def counted() -> int:
        return 1

    assert counted() == 1
    assert calls == ["counted"]
    assert counted.title is None


def test_options_of_the_decorator() -> None:
    app = make_app()
    offload = Offload(app)

    @offload.task(timeout=10, retries=2, priority=3, sensitive=["b"], queue="slow")
    def work(a: int, b: str) -> None: ...

    task = offload.celery.tasks[work.name]
    assert (task.soft_time_limit, task.time_limit) == (10, 15)
    assert (task.max_retries, task.default_priority, task.default_queue) == (2, 3, "slow")
    assert task.sensitive == ("b",)
    with pytest.raises(ConfigError, match="must be a list of names"):
        offload.task(sensitive="password")
