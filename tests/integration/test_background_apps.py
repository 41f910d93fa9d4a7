"""Background views of several apps, of factories, of other pools; and what is refused at once."""

from __future__ import annotations

import gc
import typing as t
import weakref
from pathlib import Path

import pytest
from flask import Flask

import servers
from background import Views, Visitor, job_id, working
from flask_offload import ConfigError, Offload
from waiting import wait_until

pytest_plugins = ["background_fixtures"]


def make_app(**config: t.Any) -> Flask:
    app = Flask(__name__)
    app.config.update(SECRET_KEY="s", OFFLOAD_URL="redis://127.0.0.1:1/0", **config)
    return app


def test_ten_apps_of_a_factory(valkey: servers.Valkey, tmp_path: Path) -> None:
    """Each runs its own view, also the one that is closed over by the factory."""
    views = Views(tmp_path, valkey.url)
    with pytest.MonkeyPatch.context() as patch:
        for key in ("LEDGER", "GATES"):
            patch.setenv(key, views.env[key])
        pages = []
        for number in range(10):
            namespace = f"{views.env['OFFLOAD_NAMESPACE']}-{number}"
            app = views.make(WORD=f"of app {number}", OFFLOAD_NAMESPACE=namespace)
            pages.append((number, app, views.visitor(app)))
        for number in (0, 9):
            _, app, visitor = pages[number]
            views.env["OFFLOAD_NAMESPACE"] = app.config["OFFLOAD_NAMESPACE"]
            process = views.work(WORD=f"of worker {number}")
            try:
                # The word of the app that the worker made, not of the last one.
                assert visitor.result("/closed").text == f"closed over of worker {number}"
                assert visitor.result("/outer").text == "outer"
            finally:
                process.kill()
        # In this process, too, each app has its own.
        for number, app, _ in pages:
            function = app.view_functions["closed"].__wrapped__  # type: ignore[attr-defined]
            with app.app_context():
                view = app.view_functions["closed"]._offload_view  # type: ignore[attr-defined]
                assert view.function_of(app, "closed") is function
                assert function() == f"closed over of app {number}"


@pytest.mark.parametrize("broker", ["", "redis+kombu"])
def test_other_pools_and_brokers(valkey: servers.Valkey, tmp_path: Path, broker: str) -> None:
    env = {"OFFLOAD_BROKER_URL": valkey.url.replace("redis", broker)} if broker else {}
    with working(tmp_path, valkey.url, "--pool", "prefork", **env) as views:
        with pytest.MonkeyPatch.context() as patch:
            for key in ("LEDGER", "GATES"):
                patch.setenv(key, views.env[key])
            visitor = views.visitor()
            assert visitor.json("/echo/1", "POST", data={"a": "b"})["form"] == {"a": ["b"]}
            assert len(visitor.result("/respond/file").data) == 200_000
            page = visitor.start("/fail/broken")
            assert visitor.wait(page)["state"] == "failed"
            assert visitor.ask(f"{page}/response").text == "sorry: RuntimeError"


def test_a_worker_that_is_killed_loses_no_view(valkey: servers.Valkey, tmp_path: Path) -> None:
    views = Views(tmp_path, valkey.url, OFFLOAD_LEASE="2")
    with pytest.MonkeyPatch.context() as patch:
        for key in ("LEDGER", "GATES"):
            patch.setenv(key, views.env[key])
        process = views.work()
        visitor = views.visitor()
        page = visitor.start("/slow?gate=killed")
        wait_until(lambda: views.lines("slow"))
        process.kill()
        views.open_gate("killed")
        process = views.work()
        try:
            assert visitor.wait(page)["state"] == "succeeded"
            assert visitor.ask(f"{page}/response").text == "slow is done"
            assert views.lines("slow") == ["slow", "slow"]
        finally:
            process.kill()


def test_without_a_handler_of_the_app_the_page_of_the_job_stays(
    views: Views, valkey: servers.Valkey, tmp_path: Path
) -> None:
    with working(tmp_path, valkey.url, OWN_500="") as bare:
        visitor = bare.visitor(bare.make(OWN_500=False))
        for how, sentence in (
            ("broken", "This did not work."),
            ("user", "The month has no data yet."),
        ):
            page = visitor.start(f"/fail/{how}")
            job = visitor.wait(page)
            assert (job["state"], job["response_url"]) == ("failed", None)
            answer = visitor.ask(page)
            assert (answer.status_code, sentence in answer.text) == (200, True)


def test_what_the_worker_shows_of_a_request(views: Views, visitor: Visitor) -> None:
    page = visitor.start("/slow?gate=shown&word=hidden", "POST", data={"csrf_token": "x"})
    wait_until(lambda: visitor.ask(f"{page}?format=json").get_json()["state"] == "running")
    with views.app.app_context():
        active = views.state.celery.control.inspect(timeout=5).active()
    assert job_id(page) in str(active)
    assert "hidden" not in str(active)
    views.open_gate("shown")
    visitor.wait(page)


def test_a_key_that_was_passed_on_opens_a_sandbox(views: Views) -> None:
    owner = views.visitor()
    link = owner.ask("/outer").location
    page = owner.ask(link).location
    owner.wait(page)
    assert "Content-Security-Policy" not in owner.ask(f"{page}/response").headers
    stranger = views.visitor()
    assert stranger.ask(link).location == page
    response = stranger.ask(f"{page}/response")
    assert response.text == "outer"
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox")
    assert "script" not in policy


def test_the_server_is_away(views: Views) -> None:
    app = views.make(OFFLOAD_URL="redis://127.0.0.1:1/0", OFFLOAD_PUBLISH_TIMEOUT=0.5)
    before = sorted(views.folder.glob("files/*"))
    answer = views.visitor(app).ask("/echo/1", "POST", data={"a": "x" * 100_000})
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    assert sorted(views.folder.glob("files/*")) == before


@pytest.mark.parametrize("declared_first", [True, False])
def test_a_factory_declares_before_or_after_init_app(declared_first: bool) -> None:
    offload = Offload()

    def create_app() -> Flask:
        app = make_app()
        if not declared_first:
            offload.init_app(app)

        @app.get("/")
        @offload.background
        def index() -> str:
            return app.name

        if declared_first:
            offload.init_app(app)
        return app

    for app in [create_app() for _ in range(3)]:
        tasks = app.extensions["offload"].celery.tasks
        assert [name for name in tasks if name.endswith("index")]


def test_twice_declared() -> None:
    offload = Offload(make_app())

    def view() -> str:
        return ""

    view.__qualname__ = "view"
    offload.background(view)
    with pytest.raises(ConfigError, match="declared twice"):
        offload.background(view)


def test_options() -> None:
    offload = Offload(make_app())

    @offload.background(
        queue="slow",
        priority=3,
        retries=2,
        timeout=60,
        title="Export of {name}",
        sensitive=["name"],
    )
    def export(name: str) -> str:
        """Says what it does."""
        return name

    task = next(task for name, task in offload.celery.tasks.items() if name.endswith("export"))
    assert (task.default_queue, task.default_priority, task.max_retries) == ("slow", 3, 2)
    assert (task.soft_time_limit, task.title) == (60, "Export of {name}")
    assert task.sensitive == ("http_request", "name")
    assert export.__doc__ == "Says what it does."
    # As a plain function, outside of a request.
    assert export("x") == "x"
    with pytest.raises(ConfigError, match="must be a list of names"):
        offload.background(sensitive="name")


def test_an_app_without_the_extension() -> None:
    offload = Offload()
    app = Flask(__name__)

    @app.get("/")
    @offload.background
    def index() -> str:
        return ""

    app.testing = True
    with pytest.raises(ConfigError, match=r"offload.init_app\(app\)"):
        app.test_client().get("/")


def test_apps_do_not_keep_each_other() -> None:
    offload = Offload()

    def create_app() -> Flask:
        app = make_app()
        offload.init_app(app)

        @app.get("/")
        @offload.background
        def index() -> str:
            return app.name

        return app

    apps = [weakref.ref(create_app()) for _ in range(5)]
    gc.collect()
    assert [app() for app in apps] == [None] * 5
