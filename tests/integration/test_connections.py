"""The ways to a server that a URL can name, each from a page to a worker and back."""

from __future__ import annotations

import contextlib
import socket
import time
import typing as t
from pathlib import Path

import httpx
import pytest
import redis
from celery import Celery
from celery.contrib.testing.worker import start_worker
from flask import Flask

import servers
import topologies
from event_stream import stream
from flask_offload import ConfigError, EnqueueError
from flask_offload._store import connection_options, examine
from servers import Valkey, free_port
from servers import valkey as own_server
from topologies import SentinelSetup, TLSServer, needs_redis
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System

MakeSystem = t.Callable[..., "System"]


@contextlib.contextmanager
def by_unix(database: str) -> t.Iterator[str]:
    with own_server(arguments=["--unixsocket", "s.sock"]) as server:
        with server.client() as client:
            client.config_set("requirepass", "secret")
        yield f"unix://:secret@{server.folder}/s.sock{database}"


@contextlib.contextmanager
def url_of(way: str) -> t.Iterator[str]:
    """A server that is reached in one of the ways."""
    if way == "unix":
        with by_unix("") as url:
            yield url
    elif way == "unix, database 3":
        with by_unix("?db=3") as url:
            yield url
    elif way in {"rediss", "valkeys"}:
        with topologies.running(TLSServer) as server:
            yield server.url.replace("rediss", way)
    else:
        with topologies.running(SentinelSetup, password="secret", tls="tls" in way) as setup:
            yield setup.url()


@contextlib.contextmanager
def visitor_of(app: Flask) -> t.Iterator[httpx.Client]:
    headers = {"Accept": "application/json", "Sec-Fetch-Site": "same-origin"}
    with (
        servers.web(app) as base,
        httpx.Client(base_url=base, headers=headers, timeout=30) as client,
    ):
        yield client


def web(system: System) -> tuple[Flask, t.Any]:
    app = system.app()
    celery = app.extensions["offload"].celery

    @app.post("/count")
    def count() -> dict[str, str]:
        job = celery.tasks["sample.count"].delay(5)
        return {"id": job.id, "url": job.url}

    return app, celery


@needs_redis
@pytest.mark.parametrize(
    "way", ["unix", "unix, database 3", "rediss", "valkeys", "sentinel", "sentinel, tls"]
)
def test_from_the_page_to_the_worker_and_back(make_system: MakeSystem, way: str) -> None:
    with url_of(way) as url:
        system = make_system(url)
        app, celery = web(system)
        health = examine(celery.store)
        assert (health.faults, health.server.split()[0]) == (
            [],
            "Redis" if "u" not in way else "Valkey",
        )
        with visitor_of(app) as visitor:
            job = visitor.post("/count").json()
            with stream(visitor, f"/jobs/{job['id']}/events") as live:
                states = [next(live)[1]["state"]]
                worker = system.worker("--concurrency", "2")
                for name, data, _ in live:
                    states += [data["state"]] if name == "job" else []
            assert (states[0], states[-1]) == ("queued", "succeeded")
            assert "running" in states
            assert visitor.get(job["url"]).json()["result"] == "counted"
        # Celery's own connections: of results, of chords, of remote control.
        tasks = celery.tasks
        assert tasks["sample.add"].delay(2, 3).get(timeout=20) == 5
        chord = celery.signature("sample.total")
        parts = [tasks["sample.add"].s(n, n) for n in range(3)]
        from celery import chord as chord_of

        assert chord_of(parts, app=celery)(chord).get(timeout=20) == 6
        assert celery.control.ping(timeout=5) == [{"w0@test": {"ok": "pong"}}]
        assert "secret" not in worker.text
        assert "Traceback" not in worker.text


@needs_redis
@pytest.mark.parametrize("way", ["unix, database 3", "rediss", "sentinel", "sentinel, tls"])
def test_messages_by_the_stock_transport(make_system: MakeSystem, way: str) -> None:
    with url_of(way) as url:
        # Another text is another broker to us.
        other = f"{url}&client_name=stock" if "sentinel" not in way else f"sentinel+kombu{url[8:]}"
        system = make_system(url, OFFLOAD_BROKER_URL=other)
        celery = system.app().extensions["offload"].celery
        assert celery.engine is None
        system.worker("--concurrency", "2")
        job = celery.tasks["sample.add"].delay(2, 3)
        assert job.get(timeout=20) == 5
        wait_until(lambda: job.record.state == "succeeded")


@needs_redis
@pytest.mark.parametrize("tls", [False, True])
def test_kombu_writes_sentinels_in_another_way(tmp_path: Path, tls: bool) -> None:
    """A Celery app that knows us by its settings, and has them as Celery's docs do."""
    with topologies.running(SentinelSetup, password="secret", tls=tls) as setup:
        app = Celery("plain", set_as_current=False)
        app.conf.broker_url = ";".join(
            f"sentinel://:secret@127.0.0.1:{port}/0" for port in (free_port(), setup.port)
        )
        app.conf.broker_transport = "flask_offload.transport:Transport"
        app.conf.broker_transport_options = {
            "master_name": topologies.MASTER,
            "sentinel_kwargs": {"password": "secret", **setup.tls},
        }
        if tls:
            app.conf.broker_use_ssl = {k: v for k, v in setup.tls.items() if k != "ssl"}
        app.conf.result_backend = f"flask_offload.backend:OffloadBackend+{setup.url()}"
        assert "secret" not in app.backend.as_uri()

        def twice(number: int) -> int:
            return 2 * number

        task = app.task(name="plain.twice", shared=False)(twice)
        with start_worker(app, pool="solo", perform_ping_check=False):
            assert task.delay(3).get(timeout=20) == 6


# -- what is wrong is said in one line


def refusal(system: System) -> str:
    """What an enqueue says."""
    celery = system.app().extensions["offload"].celery
    with pytest.raises(EnqueueError) as caught:
        celery.tasks["sample.add"].delay(1)
    text = str(caught.value)
    assert "\n" not in text
    # A worker that could never work does not start; it says the same.
    (fault,) = examine(celery.store).faults
    assert fault.mend in text
    return text


@needs_redis
def test_a_certificate_that_is_not_accepted(make_system: MakeSystem, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with topologies.running(TLSServer) as server:
        wrong = topologies.Certificates(other)
        for query in (f"ssl_ca_certs={wrong['ca.pem']}", ""):
            text = refusal(make_system(f"{server.bare}?{query}"))
            assert "The certificate of the server is not accepted" in text
            assert "Set ssl_ca_certs in OFFLOAD_URL" in text
        worker = make_system(server.bare).worker("--pool", "solo", ready=False)
        assert worker.popen.wait(30) == 1
        assert "Error: The server of OFFLOAD_URL cannot be reached." in worker.text
        assert "Mend: Set ssl_ca_certs in OFFLOAD_URL" in worker.text
        # The CA is right, but the server wants to see a certificate too.
        right = server.certificates
        text = refusal(make_system(f"{server.bare}?{right.query()}"))
        assert "set ssl_certfile and ssl_keyfile in OFFLOAD_URL" in text
        name = server.url.replace("127.0.0.1", "0.0.0.0")
        assert "Set OFFLOAD_URL to a name that the certificate has." in refusal(make_system(name))


def test_no_tls_on_that_port(make_system: MakeSystem, valkey: Valkey) -> None:
    url = valkey.url.replace("redis:", "rediss:")
    assert "set OFFLOAD_URL to the port that has it, or to redis:// without" in refusal(
        make_system(url)
    )


@needs_redis
def test_sentinels_that_do_not_know(make_system: MakeSystem) -> None:
    with topologies.running(SentinelSetup) as setup:
        system = make_system(setup.url(master="mymaster"))
        text = refusal(system)
        assert "The sentinels of OFFLOAD_URL know no primary 'mymaster'." in text
        assert f"Set master= in it to one of: {topologies.MASTER}." in text
        worker = system.worker("--pool", "solo", ready=False)
        assert worker.popen.wait(30) == 1
        assert f"one of: {topologies.MASTER}." in worker.text
    text = refusal(make_system(f"sentinel://127.0.0.1:{free_port()},localhost:1/0?master=m"))
    assert "No sentinel of OFFLOAD_URL answers (127.0.0.1:" in text
    assert "Start them, or set OFFLOAD_URL to where they are: sentinel://" in text


@needs_redis
def test_a_sentinel_that_hangs_costs_no_budget(make_system: MakeSystem) -> None:
    with topologies.running(SentinelSetup) as setup, socket.create_server(("127.0.0.1", 0)) as mute:
        # Connections to it open, and nobody answers.
        url = setup.url().replace("//", f"//127.0.0.1:{mute.getsockname()[1]},")
        add = make_system(url).app().extensions["offload"].celery.tasks["sample.add"]
        times = []
        for _ in range(3):
            began = time.monotonic()
            add.delay(1)
            times.append(time.monotonic() - began)
        assert times[0] < 2
        # It is asked last from then on.
        assert max(times[1:]) < 0.3


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sentinel://h1:26379,h2", "does not say which primary: sentinel://.*master=name"),
        ("sentinel://h1;sentinel://h2/0?master=m", "with commas, as in sentinel://"),
        ("sentinel://h1:x,h2/0?master=m", "a sentinel without a host, or no number for its port"),
        ("sentinel:///0?master=m", "a sentinel without a host"),
    ],
)
def test_malformed_sentinel_urls(make_system: MakeSystem, url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_system(url).app()


def test_a_read_only_replica_takes_no_job(make_system: MakeSystem, own_valkey: Valkey) -> None:
    with own_server(arguments=["--replicaof", f"127.0.0.1 {own_valkey.port}"]) as replica:
        with replica.client() as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", 20)
        system = make_system(replica.url)
        celery = system.app().extensions["offload"].celery
        with pytest.raises(EnqueueError, match=r"a read-only replica\. Set it to the primary"):
            celery.tasks["sample.add"].delay(1)
        worker = system.worker("--pool", "solo", ready=False)
        assert worker.popen.wait(30) == 1
        assert "Error: OFFLOAD_URL names a read-only replica." in worker.text
        assert f"set OFFLOAD_URL to the primary: 127.0.0.1:{own_valkey.port}." in worker.text


def test_a_server_that_is_too_old(make_system: MakeSystem, valkey: Valkey) -> None:
    with valkey.client() as client:
        version = client.info("server")["valkey_version"]
    old = "7.1" + version[3:]
    field = "valkey_version:"
    pair = f"{field}{version}".encode(), f"{field}{old}".encode()
    with topologies.relabelled(valkey, *pair) as url:
        worker = make_system(url).worker("--pool", "solo", ready=False)
        assert worker.popen.wait(30) == 1
        assert f"Error: Valkey {old} is too old." in worker.text
        assert "Mend: upgrade it to Valkey 7.2 or newer, or set OFFLOAD_URL" in worker.text
        assert "Traceback" not in worker.text


def test_connections_share_a_driver_and_have_small_buffers(system: System, valkey: Valkey) -> None:
    def told() -> set[tuple[str, str]]:
        with valkey.client() as client:
            found = client.client_list()
        return {(line["lib-name"], line["lib-ver"]) for line in found}

    app = system.app().extensions["offload"].celery
    kwargs = app.store.connections._settings.connection_kwargs
    with app.connection_for_read() as connection:
        params = connection.default_channel._connparams()
    assert params["driver_info"] is kwargs["driver_info"]
    assert params["socket_read_size"] == kwargs["socket_read_size"] < 32_768
    app.store.call("PING")
    assert ("redis-py", redis.__version__) in told()
    # Who names another in the URL means it.
    assert "driver_info" not in connection_options("redis://host?lib_name=shop")
    assert connection_options("redis://host?socket_read_size=99")["socket_read_size"] == 99
