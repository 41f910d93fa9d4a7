"""An enqueue returns, or says in time that it did not: no matter what the servers do."""

from __future__ import annotations

import threading
import time
import typing as t

import pytest

import servers
from chaos.proxy import Proxy
from flask_offload import EnqueueError, JobState, NotSerializable, PayloadTooLarge
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System

BUDGET = 1.0
#: What a loaded test machine may add; the budget itself is what is tested.
NOISE = 1.0


def enqueue(app: t.Any, *args: t.Any) -> t.Any:
    return app.extensions["offload"].celery.tasks["sample.add"].delay(*args)


@pytest.fixture
def app(make_system: t.Callable[..., System], own_valkey: servers.Valkey) -> t.Any:
    return make_system(own_valkey.url).app(OFFLOAD_PUBLISH_TIMEOUT=BUDGET)


def test_wrong_arguments_are_a_type_error_at_the_call(app: t.Any) -> None:
    with pytest.raises(TypeError, match="takes from 1 to 2 positional arguments but 3"):
        enqueue(app, 1, 2, 3)
    with pytest.raises(NotSerializable, match="An argument of sample.add is not JSON"):
        enqueue(app, object())
    assert app.extensions["offload"].control.newest() == []


def test_reply_that_is_lost_together_with_the_server(
    make_system: t.Callable[..., System], own_valkey: servers.Valkey
) -> None:
    """The server had accepted it, so the error must not say that it will not run."""
    with Proxy(own_valkey.port) as proxy:
        app = make_system(proxy.url).app(OFFLOAD_PUBLISH_TIMEOUT=BUDGET)
        enqueue(app, 1)
        proxy.after_cut = "cut"
        proxy.set("cut-replies")
        write = app.extensions["offload"].celery.tasks["sample.note"]
        with pytest.raises(EnqueueError, match="It may have been accepted all the same"):
            write.delay("/nowhere", "cut-1")
        proxy.set("pass")
        assert len(app.extensions["offload"].control.newest()) == 2


def test_payload_over_the_cap(app: t.Any) -> None:
    with pytest.raises(PayloadTooLarge, match="OFFLOAD_MAX_PAYLOAD allows 1,000,000"):
        enqueue(app, "x" * 1_000_000)
    assert app.extensions["offload"].control.newest() == []


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("fault", ["stop", "pause"])
def test_server_away(app: t.Any, own_valkey: servers.Valkey, fault: str, warm: bool) -> None:
    if warm:
        enqueue(app, 1)
    getattr(own_valkey, fault)()
    try:
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(EnqueueError):
                enqueue(app, 2)
            assert time.monotonic() - started < BUDGET + NOISE
    finally:
        own_valkey.resume() if fault == "pause" else own_valkey.start()
    assert enqueue(app, 3).record.state is JobState.QUEUED
    control = app.extensions["offload"].control

    def queued() -> list[t.Any]:
        return sorted(r.args[0] for r in control.newest() if r.state is JobState.QUEUED)

    # A paused server carries out, when it wakes up, what was sent to it meanwhile. What raised
    # is void all the same: no worker may start it, and after a moment it is not "queued".
    wait_until(lambda: queued() == ([1, 3] if warm else [3]), message=lambda: repr(queued()))


def test_thirty_requests_at_once_share_no_more_than_one_budget(
    app: t.Any, own_valkey: servers.Valkey
) -> None:
    enqueue(app, 1)
    own_valkey.pause()
    took: list[float] = []

    def request() -> None:
        started = time.monotonic()
        with pytest.raises(EnqueueError):
            enqueue(app, 2)
        took.append(time.monotonic() - started)

    threads = [threading.Thread(target=request) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own_valkey.resume()
    assert len(took) == 30
    assert max(took) < BUDGET + NOISE


@pytest.mark.parametrize("fault", ["stop", "pause"])
def test_broker_away_while_the_records_are_there(
    make_system: t.Callable[..., System],
    valkey: servers.Valkey,
    own_valkey: servers.Valkey,
    fault: str,
) -> None:
    system = make_system(valkey.url, OFFLOAD_BROKER_URL=own_valkey.url)
    app = system.app(OFFLOAD_PUBLISH_TIMEOUT=BUDGET)
    good = enqueue(app, 1)
    getattr(own_valkey, fault)()
    started = time.monotonic()
    with pytest.raises(EnqueueError, match="OFFLOAD_BROKER_URL"):
        enqueue(app, 2)
    assert time.monotonic() - started < BUDGET + NOISE
    own_valkey.resume() if fault == "pause" else own_valkey.start()
    states = {record.args[0]: record.state for record in app.extensions["offload"].control.newest()}
    assert states == {1: JobState.QUEUED, 2: JobState.FAILED}
    # The paused broker did get the message in the end. The worker that finds it must not run it.
    system.worker()
    late = enqueue(app, 3)
    assert late.get(timeout=20) == 4
    if fault == "pause":
        assert good.get(timeout=20) == 2
    records = {record.args[0]: record for record in app.extensions["offload"].control.newest()}
    assert (records[2].state, records[2].starts) == (JobState.FAILED, 0)


def test_full_server_refuses_and_workers_drain_it(
    make_system: t.Callable[..., System], own_valkey: servers.Valkey
) -> None:
    system = make_system(own_valkey.url)
    app = system.app()
    jobs = [enqueue(app, n) for n in range(20)]
    with own_valkey.client() as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"])
        with pytest.raises(EnqueueError, match="maxmemory"):
            enqueue(app, 99)
        client.config_set("maxmemory", 0)
    system.worker()
    assert [job.get(timeout=20) for job in jobs] == [n + 1 for n in range(20)]


def test_web_process_that_dies_between_record_and_message_leaves_nothing_queued(
    make_system: t.Callable[..., System], valkey: servers.Valkey
) -> None:
    """The record alone, as it is at that moment, and nobody to confirm it."""
    from flask_offload._store import Deadline, NewJob

    control = make_system(valkey.url).app().extensions["offload"].control
    job = NewJob(id="half", task="sample.add")
    control.store.enqueue(
        job, state=JobState.QUEUED, confirm_within=0.2, deadline=Deadline.after(2)
    )
    assert control.get("half").state is JobState.QUEUED
    wait_until(lambda: control.get("half").state is JobState.FAILED)
    assert control.get("half").error_type == "EnqueueError"
