"""Live streams on the web servers of docs/deploying.md, as processes of their own."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import typing as t
from pathlib import Path

import httpx
import pytest

import servers
from event_stream import Event, stream
from servers import free_port
from waiting import wait_until
from web_app import Site

pytest.importorskip("gevent")
HERE = Path(__file__).parent.parent
GUNICORN = (sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:{port}", "served_app:app")
DEVELOPMENT = (sys.executable, "-m", "flask", "--app", "served_app", "run", "--port", "{port}")


class Served:
    """A web server, and a job that it shows."""

    def __init__(self, valkey: servers.Valkey, folder: Path, *command: str, **env: str) -> None:
        self.site = Site(valkey.url, folder)
        self.site.worker()
        self.job_id = self.site.enqueue()
        self.site.run(self.job_id)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = servers.Process(
            *(part.format(port=port) for part in command),
            log=folder / "web.log",
            cwd=HERE,
            env={
                "OFFLOAD_URL": valkey.url,
                "OFFLOAD_NAMESPACE": self.site.settings.namespace,
                **env,
            },
        )
        self.client = httpx.Client(
            base_url=self.url,
            headers={"Accept": "application/json"},
            timeout=20,
            limits=httpx.Limits(max_connections=None),
        )
        wait_until(self.answers, 30, message=lambda: self.process.text)

    def answers(self, timeout: float = 20) -> bool:
        try:
            return self.client.get("/hello", timeout=timeout).text == "hello"
        except httpx.TransportError:
            return False

    @property
    def events(self) -> str:
        # The key of the job, signed as the app signs.
        self.site.access._secret_key = lambda: "only for tests"
        key = self.site.access._signer("key").get_signature(self.job_id).decode()
        return f"/jobs/{self.job_id}/events?key={key}"

    @contextlib.contextmanager
    def streams(self, number: int) -> t.Iterator[list[t.Iterator[Event]]]:
        with contextlib.ExitStack() as stack:
            live = [stack.enter_context(stream(self.client, self.events)) for _ in range(number)]
            assert {next(each)[1]["state"] for each in live} == {"running"}
            yield live

    def close(self) -> None:
        self.client.close()
        self.process.kill()


@pytest.fixture
def serve(own_valkey: servers.Valkey, tmp_path: Path) -> t.Iterator[t.Callable[..., Served]]:
    with contextlib.ExitStack() as stack:

        def start(*command: str, **env: str) -> Served:
            served = Served(own_valkey, tmp_path, *command, **env)
            stack.callback(served.close)
            return served

        yield start


def live_to_the_end(served: Served, live: list[t.Iterator[Event]]) -> None:
    """Lines, progress and the end arrive on all streams, while the app answers others."""
    for number in range(1, 4):
        served.site.say(served.job_id, f"line {number}", done=number, total=3)
        for each in live:
            _, job, _ = next(each)
            assert job["progress"]["done"] == number
            assert [line["text"] for line in job["logs"]] == [f"line {number}"]
        assert served.answers()
    served.site.finish(served.job_id, "ok")
    for each in live:
        assert [(name, job.get("result")) for name, job, _ in each] == [
            ("job", "ok"),
            ("end", None),
        ]


def test_gunicorn_with_threads_keeps_half_of_them_for_requests(
    serve: t.Callable[..., Served],
) -> None:
    served = serve(*GUNICORN, "--threads", "8")
    with served.streams(4) as live:
        assert served.client.get(served.events).status_code == 204
        live_to_the_end(served, live)


def test_gunicorn_with_threads_and_a_cap(serve: t.Callable[..., Served]) -> None:
    served = serve(*GUNICORN, "--threads", "40", OFFLOAD_MAX_STREAMS="15")
    with served.streams(15) as live:
        assert served.client.get(served.events).status_code == 204
        live_to_the_end(served, live)


def test_gunicorn_with_one_thread_holds_none(serve: t.Callable[..., Served]) -> None:
    served = serve(*GUNICORN)
    assert served.client.get(served.events).status_code == 204


def test_gunicorn_with_gevent(serve: t.Callable[..., Served]) -> None:
    served = serve(*GUNICORN, "-k", "gevent", OFFLOAD_MAX_STREAMS="150")
    with served.streams(150) as live:
        assert served.client.get(served.events).status_code == 204
        live_to_the_end(served, live)


def test_a_server_that_hangs_holds_up_no_greenlet(
    serve: t.Callable[..., Served], own_valkey: servers.Valkey
) -> None:
    """What waits for the server, in the feed, a stream or a request, lets others run."""
    served = serve(*GUNICORN, "-k", "gevent", OFFLOAD_PUBLISH_TIMEOUT="5")
    with served.streams(3) as live:
        own_valkey.pause()
        try:
            asked: list[httpx.Response] = []
            url = served.events.replace("/events", "")
            asking = threading.Thread(
                target=lambda: asked.append(httpx.get(served.url + url, timeout=30))
            )
            asking.start()
            began = time.monotonic()
            while time.monotonic() - began < 1.5:
                assert served.answers(timeout=1.0)
            assert not asked
        finally:
            own_valkey.resume()
        asking.join(30)
        assert asked[0].status_code in (200, 303)
        live_to_the_end(served, live)


def test_the_development_server(serve: t.Callable[..., Served]) -> None:
    served = serve(*DEVELOPMENT)
    with served.streams(100) as live:
        assert served.client.get(served.events).status_code == 204
        live_to_the_end(served, live)
