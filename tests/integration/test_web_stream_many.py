"""Many streams on one process: what they cost the server, and that none holds up another."""

from __future__ import annotations

import contextlib
import socket
import threading
import typing as t
from pathlib import Path

import httpx

from event_stream import events, stream
from flask_offload._web.reader import Reader
from servers import Valkey
from waiting import wait_until
from web_app import Site, start

pytest_plugins = ["web_fixtures"]

READERS = 50


def reads(site: Site) -> int:
    """How often a record has been read, as the server counts."""
    text = str(site.store.call("INFO", "commandstats"))
    (line,) = (line for line in text.splitlines() if line.startswith("cmdstat_hmget:"))
    return int(line.partition("calls=")[2].partition(",")[0])


def test_fifty_streams_cost_one_read_of_each_change(own_valkey: Valkey, tmp_path: Path) -> None:
    site = Site(own_valkey.url, tmp_path, max_streams_per_owner=READERS)
    site.worker()
    with site.served(), contextlib.ExitStack() as stack:
        visitor = site.visitor()
        visitor._transport = httpx.HTTPTransport(limits=httpx.Limits(max_connections=READERS + 5))
        job_id = start(site, visitor)
        site.run(job_id)
        live = [
            stack.enter_context(stream(visitor, f"/jobs/{job_id}/events")) for _ in range(READERS)
        ]
        assert {next(each)[1]["state"] for each in live} == {"running"}
        with own_valkey.client() as client:
            assert len([c for c in client.client_list() if c["cmd"] == "xread"]) == 1
        before = reads(site)
        for number in range(1, 6):
            site.say(job_id, f"line {number}", done=number, total=10)
            found = [next(each)[1] for each in live]
            assert {job["progress"]["done"] for job in found} == {number}
            assert {job["logs"][0]["text"] for job in found} == {f"line {number}"}
        # A look without a change may fall in between.
        assert 5 <= reads(site) - before <= 7
        with own_valkey.client() as client:
            # Those of the pool, of this test and of the feed; none of a stream.
            assert len(client.client_list()) < 15


def test_the_places_of_many_jobs_are_read_in_few_round_trips(
    own_valkey: Valkey, tmp_path: Path
) -> None:
    site = Site(own_valkey.url, tmp_path)
    site.worker()
    line = site.store.keys.queue("celery")
    first, *others = [site.enqueue() for _ in range(301)]
    for number, job_id in enumerate([first, *others]):
        site.store.call("ZADD", line, number, job_id)
    with site.streams.board.reader(others) as reader:
        assert places(reader, others) == {i: n for n, i in enumerate(others, 2)}
        before = round_trips(site)
        site.store.call("ZREM", line, first)
        assert places(reader, others) == {i: n for n, i in enumerate(others, 1)}
        # Some for each fifty of a sweep, of which the change takes one or two.
        assert round_trips(site) - before < 100


def places(reader: Reader, job_ids: list[str]) -> dict[str, int]:
    """Where jobs stand once each of them has been told."""
    found: dict[str, int] = {}
    while found.keys() < set(job_ids):
        news = reader.take(10)
        assert news, len(found)
        found |= {job_id: snapshot.facts.waiting.place for job_id, snapshot in news.items()}
    return found


def round_trips(site: Site) -> int:
    """How often the server has read from a connection."""
    text = str(site.store.call("INFO", "stats"))
    return int(text.partition("total_reads_processed:")[2].partition("\r")[0])


def dial(site: Site, visitor: httpx.Client, path: str) -> socket.socket:
    """A connection whose client reads nothing, and has little room."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, _, port = site.url.removeprefix("http://").partition(":")
    connection.connect((host, int(port)))
    cookies = "; ".join(f"{c.name}={c.value}" for c in visitor.cookies.jar)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nCookie: {cookies}\r\n\r\n".encode())
    return connection


def test_a_client_that_does_not_read_is_dropped_and_holds_nobody_up(
    valkey: Valkey, tmp_path: Path
) -> None:
    site = Site(valkey.url, tmp_path)
    site.worker()
    site.streams.board._patience = 2
    with site.served():
        visitor = site.visitor()
        job_id = start(site, visitor)
        site.run(job_id)
        deaf = dial(site, visitor, f"/jobs/{job_id}/events")
        wait_until(lambda: site.streams.board.readers == 1)
        seen: list[str] = []
        with stream(visitor, f"/jobs/{job_id}/events") as live:
            next(live)
            # More than what the kernel keeps for who does not read.
            number = 0
            while site.streams.board.readers == 2:
                number += 1
                site.say(job_id, *(f"{number} {'x' * 1_900}" for _ in range(500)))
                while len(seen) < number * 500:
                    seen += [line["text"] for line in next(live)[1]["logs"]]
                assert number < 100
            assert site.streams.board.readers == 1
            assert len(seen) == number * 500
            site.finish(job_id, "ok")
            assert next(live)[1]["state"] == "succeeded"
        # Its connection is closed, too, after what the kernel had for it.
        deaf.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            while deaf.recv(1 << 20):
                pass
        deaf.close()


def test_who_was_dropped_comes_back_and_has_each_line_once(valkey: Valkey, tmp_path: Path) -> None:
    """A reader that stalls again and again, while lines come."""
    site = Site(valkey.url, tmp_path, max_log_lines=100_000)
    site.worker()
    board = site.streams.board
    with site.served():
        visitor = site.visitor()
        job_id = start(site, visitor)
        site.run(job_id)
        written, numbers, last_id = 0, [], ""
        for drop in range(4):
            wait_until(lambda: board.readers == 0)
            board._patience = 0.3 if drop < 3 else 30
            headers = {"Last-Event-ID": last_id}
            with stream(visitor, f"/jobs/{job_id}/events", **headers) as live:
                wait_until(lambda: board.readers == 1)
                if drop < 3:
                    # More than what the kernel keeps for who does not read.
                    for _ in range(40):
                        site.say(job_id, *(f"{written + n} {'x' * 1_500}" for n in range(1, 201)))
                        written += 200
                    wait_until(lambda: board.readers == 0)
                else:
                    site.finish(job_id, "ok")
                with contextlib.suppress(httpx.TransportError):
                    for name, job, event_id in live:
                        if name == "job":
                            numbers += [int(line["text"].split()[0]) for line in job["logs"]]
                            last_id = event_id
    assert (name, job) == ("end", {})
    assert numbers == list(range(1, written + 1))


def test_streams_of_those_who_left_are_found(site: Site) -> None:
    """Nothing is written to them meanwhile, by which the web server would notice."""
    visitor = site.visitor()
    job_id = start(site, visitor)
    with contextlib.ExitStack() as stack:
        live = [stack.enter_context(stream(visitor, f"/jobs/{job_id}/events")) for _ in range(5)]
        assert {next(each)[1]["state"] for each in live} == {"queued"}
        assert visitor.get(f"/jobs/{job_id}/events").status_code == 204
    wait_until(lambda: site.streams.board.readers == 0, 5)


def test_the_server_restarts_and_streams_go_on(own_valkey: Valkey, tmp_path: Path) -> None:
    site = Site(own_valkey.url, tmp_path, max_streams_per_owner=10)
    site.worker()
    with site.served():
        visitor = site.visitor()
        job_id = start(site, visitor)
        site.run(job_id)
        last: dict[int, str] = {}

        def follow(number: int) -> None:
            """As a page does: it comes back until the job is over."""
            while True:
                try:
                    with visitor.stream(
                        "GET",
                        f"/jobs/{job_id}/events",
                        headers={"Last-Event-ID": last.get(number, "")},
                    ) as response:
                        for name, job, event_id in events(response.iter_lines()):
                            if name == "job":
                                lines[number] += [line["text"] for line in job["logs"]]
                                last[number] = event_id
                            if name == "end":
                                return
                except httpx.TransportError:
                    pass

        lines: dict[int, list[str]] = {number: [] for number in range(10)}
        pages = [threading.Thread(target=follow, args=[number]) for number in lines]
        for page in pages:
            page.start()
        site.say(job_id, "before")
        wait_until(lambda: all(each == ["before"] for each in lines.values()))
        own_valkey.stop()
        own_valkey.start()
        wait_until(lambda: _tried(lambda: site.say(job_id, "after")))
        _tried(lambda: site.finish(job_id, "ok"))
        for page in pages:
            page.join(30)
    assert all(each == ["before", "after"] for each in lines.values())


def _tried(call: t.Callable[[], object]) -> bool:
    try:
        call()
    except Exception:
        return False
    return True


def test_a_record_that_cannot_be_read_ends_its_own_stream_only(
    valkey: Valkey, tmp_path: Path
) -> None:
    site = Site(valkey.url, tmp_path)
    site.worker()
    with site.served():
        visitor = site.visitor()
        good, bad = start(site, visitor), start(site, visitor)
        with (
            stream(visitor, f"/jobs/{good}/events") as one,
            stream(visitor, f"/jobs/{bad}/events") as other,
        ):
            next(one), next(other)
            site.store.call("HSET", site.store.keys.job(bad), "started_at", "no number")
            for job_id in (good, bad):
                site.store.call("XADD", site.store.keys.events, "*", "job", job_id, "kind", "x")
            assert list(other) == []
            site.run(good)
            assert next(one)[1]["state"] == "running"
