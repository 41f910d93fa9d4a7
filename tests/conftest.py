"""What tests share: a real server, apps on namespaces of their own, real workers."""

from __future__ import annotations

import contextlib
import os
import secrets
import typing as t
from pathlib import Path

import pytest
from flask import Flask

import rabbitmq
import servers
from waiting import wait_until

ALL = ["prefork", "threads"]


@pytest.fixture(scope="session")
def valkey() -> t.Iterator[servers.Valkey]:
    """A server for tests that do no harm to it."""
    with servers.valkey() as server:
        yield server


@pytest.fixture
def own_valkey() -> t.Iterator[servers.Valkey]:
    """A server that the test may stop, pause or kill."""
    with servers.valkey() as server:
        yield server


class System:
    """An app, its tasks, and workers for it."""

    def __init__(self, folder: Path, url: str, **env: str) -> None:
        self.folder = folder
        self.env = {
            "OFFLOAD_URL": url,
            "OFFLOAD_NAMESPACE": f"t{secrets.token_hex(4)}",
            "OFFLOAD_FILES_URL": str(folder / "files"),
            "VISIBILITY_TIMEOUT": "3600",
            **env,
        }
        self.workers: list[servers.Process] = []

    def app(self, **config: t.Any) -> Flask:
        with pytest.MonkeyPatch.context() as patch:
            for key, value in self.env.items():
                patch.setenv(key, value)
            import sample

            return sample.create_app(**config)

    def worker(
        self, *arguments: str, ready: bool = True, mingle: bool = False, **env: str
    ) -> servers.Process:
        log = self.folder / f"worker{len(self.workers)}.log"
        name = f"w{len(self.workers)}@test"
        # The parent of pytest may have set up logging by environment; a worker starts afresh.
        arguments = ("-n", name, *arguments)
        process = servers.worker(
            "sample.celery", log, *arguments, env=self.env | env, mingle=mingle
        )
        self.workers.append(process)
        if ready:
            wait_until(
                lambda: "ready." in process.text, 30, message=lambda: f"the worker: {process.text}"
            )
        return process

    def close(self) -> None:
        for process in self.workers:
            process.kill()


@pytest.fixture(scope="module", params=servers.KINDS)
def server(request: pytest.FixtureRequest) -> t.Iterator[servers.Valkey]:
    """One of each kind, for what must hold on both."""
    with servers.of_kind(request.param) as server:
        yield server


@pytest.fixture
def make_system(tmp_path: Path) -> t.Iterator[t.Callable[..., System]]:
    systems: list[System] = []

    def make(url: str, **env: str) -> System:
        systems.append(System(tmp_path, url, **env))
        return systems[-1]

    yield make
    for system in systems:
        system.close()


@pytest.fixture
def system(make_system: t.Callable[..., System], valkey: servers.Valkey) -> System:
    return make_system(valkey.url)


@pytest.fixture(scope="module", params=[*ALL, "stock", "rabbitmq"])
def running(
    request: pytest.FixtureRequest, valkey: servers.Valkey, tmp_path_factory: t.Any
) -> t.Iterator[Running]:
    """An app and one worker that all tests of a module share: once for each pool on our line, and
    once on each other broker."""
    pool = request.param if request.param in ALL else "prefork"
    with contextlib.ExitStack() as stack:
        env = {"VISIBILITY_TIMEOUT": ""}
        if request.param == "stock":
            env["OFFLOAD_BROKER_URL"] = valkey.url.replace("redis://", "redis+kombu://")
        if request.param == "rabbitmq":
            if not rabbitmq.installed() and "CI" not in os.environ:
                pytest.skip(rabbitmq.HOW_TO_GET_IT)
            env["OFFLOAD_BROKER_URL"] = stack.enter_context(rabbitmq.rabbitmq()).url
        system = System(tmp_path_factory.mktemp("running"), valkey.url, **env)
        stack.callback(system.close)
        system.worker("--pool", pool, "--concurrency", "4", "--task-events")
        yield Running(system)


class Running:
    def __init__(self, system: System) -> None:
        self.system = system
        self.app = system.app()
        self.state = self.app.extensions["offload"]
        self.tasks: dict[str, t.Any] = self.state.celery.tasks

    def delay(self, name: str, *args: t.Any, **kwargs: t.Any) -> t.Any:
        return self.tasks[f"sample.{name}"].delay(*args, **kwargs)

    def finished(self, job: t.Any, timeout: float = 20) -> t.Any:
        """The record of a job, once it is over."""
        wait_until(
            lambda: job.record.state.finished, timeout, message=lambda: f"the end of {job.record}"
        )
        return job.record
