"""How the answer of a near server, and of a slow one, is waited for."""

from __future__ import annotations

import sys
import time
import typing as t

import pytest

import servers
from flask_offload._store import Deadline, StoreUnavailable
from flask_offload._store.connection import Connections
from waiting import wait_until

if t.TYPE_CHECKING:
    from flask_offload._store import Link


@pytest.fixture
def connections(server: servers.Valkey) -> t.Iterator[Connections]:
    connections = Connections(server.url)
    yield connections
    connections.close()


def soon() -> Deadline:
    return Deadline.after(10)


@pytest.mark.skipif(sys.platform != "linux", reason="nobody counts them for each thread")
def test_who_waits_for_a_near_server_does_not_sleep(connections: Connections) -> None:
    import resource

    def sleeps(link: Link, *, looks: bool) -> int:
        link.looks = looks
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        for _ in range(200):
            assert link.call("PING") == "PONG"
        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before

    with connections.take(soon()) as link:
        # On a busy machine it may take the server longer now and then.
        wait_until(lambda: sleeps(link, looks=True) < sleeps(link, looks=False) / 2, 20)


def test_who_waits_for_a_slow_server_costs_no_processor(connections: Connections) -> None:
    with connections.take(soon()) as link:
        assert link.looks
        link.call("PING")
        before = time.thread_time()
        for _ in range(50):
            assert link.call("BLPOP", "nothing", "0.01") is None
        # Half a second of waiting.
        assert time.thread_time() - before < 0.1
        started = time.monotonic()
        link.within(Deadline.after(0.2))
        with pytest.raises(StoreUnavailable, match="Timeout"):
            link.call("BLPOP", "nothing", "5")
        assert time.monotonic() - started < 2


def test_of_several_threads_that_wait_one_looks(connections: Connections) -> None:
    with connections.take(soon()) as first, connections.take(soon()) as second:
        assert (first.looks, second.looks) == (True, False)
        assert first.call("PING") == second.call("PING") == "PONG"

    def is_alone_again() -> bool:
        with connections.take(soon()) as link:
            return link.looks

    wait_until(is_alone_again)
