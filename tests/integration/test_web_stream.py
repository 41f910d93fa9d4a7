"""The live streams, over HTTP, on a real Valkey."""

from __future__ import annotations

import random
import threading
import time
import typing as t
from pathlib import Path

import pytest

from event_stream import events, stream
from flask_offload._web.links import Links
from flask_offload._web.sse import Streams
from flask_offload._web.watch import JobWatch, seen_of
from waiting import wait_until
from web_app import REVOKED, WORKER, Site, start

if t.TYPE_CHECKING:
    from servers import Valkey

pytest_plugins = ["web_fixtures"]


def test_a_job_from_its_start_to_its_end(site: Site) -> None:
    visitor = site.visitor()
    job_id = start(site, visitor)
    with stream(visitor, f"/jobs/{job_id}/events") as live:
        name, job, last_id = next(live)
        assert (name, job["state"], job["logs"]) == ("job", "queued", [])
        assert last_id.endswith("~0")
        site.run(job_id)
        assert next(live)[1]["state"] == "running"
        site.say(job_id, "one", "two", done=1, total=4, message="Reading")
        _, job, last_id = next(live)
        assert job["progress"]["fraction"] == 0.25
        assert (job["message"], job["view"]["text"]) == ("Reading", ["Reading"])
        assert [line["text"] for line in job["logs"]] == ["one", "two"]
        assert last_id.endswith("~2")
        site.finish(job_id, "Sent.")
        _, job, _ = next(live)
        assert (job["state"], job["result"], job["logs"]) == ("succeeded", "Sent.", [])
        assert [name for name, _, _ in live] == ["end"]


def test_headers(site: Site) -> None:
    visitor = site.visitor()
    url = f"/jobs/{start(site, visitor)}/events"
    with visitor.stream("GET", url) as response:
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Accel-Buffering"] == "no"
        name, _, milliseconds = next(response.iter_lines()).partition(": ")
        assert name == "retry"
        assert 1_000 <= int(milliseconds) <= 3_000
    assert visitor.head(url).content == b""


def test_a_job_that_is_over(site: Site) -> None:
    visitor = site.visitor()
    job_id = start(site, visitor)
    site.run(job_id)
    site.finish(job_id, 1)
    with stream(visitor, f"/jobs/{job_id}/events") as live:
        assert [(name, data.get("state")) for name, data, _ in live] == [
            ("job", "succeeded"),
            ("end", None),
        ]


@pytest.mark.parametrize("known", ["", "x", "~", "~x", "1-1~-1", "~" + "9" * 30, "~²"])
def test_an_odd_last_id_begins_at_the_start(site: Site, known: str) -> None:
    visitor = site.visitor()
    job_id = start(site, visitor)
    site.run(job_id)
    site.say(job_id, "one")
    with visitor.stream(
        "GET", f"/jobs/{job_id}/events", params={"last_event_id": known}
    ) as response:
        _, job, _ = next(events(response.iter_lines()))
    assert [line["seq"] for line in job["logs"]] == [1]


def test_resume_repeats_and_misses_no_line(valkey: Valkey, tmp_path: Path) -> None:
    """A client that is cut off again and again, while lines come."""
    site = Site(valkey.url, tmp_path, max_log_lines=100_000)
    with site.served():
        follow_with_cuts(site)


def follow_with_cuts(site: Site) -> None:
    visitor = site.visitor()
    job_id = start(site, visitor)
    site.run(job_id)
    written = connections = 0

    def write() -> None:
        nonlocal written
        while connections < 6:
            written += 1
            site.say(job_id, str(written))
        site.finish(job_id, "ok")

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[str] = []
    last_id, over = "", False
    while not over:
        connections += 1
        with stream(visitor, f"/jobs/{job_id}/events", **{"Last-Event-ID": last_id}) as live:
            for _ in range(2):
                name, job, event_id = next(live)
                if name == "end":
                    over = True
                    break
                seen += [line["text"] for line in job["logs"]]
                last_id = event_id
    writer.join()
    assert seen == [str(number) for number in range(1, written + 1)]


def test_the_last_change_is_never_missed(site: Site) -> None:
    """Jobs that end while their stream opens, at every point in between."""
    visitor = site.visitor()
    jobs = [start(site, visitor) for _ in range(40)]
    for job_id in jobs:
        site.run(job_id)
    chance = random.Random(1)

    def finish() -> None:
        for job_id in jobs:
            opening[job_id].wait(10)
            time.sleep(chance.random() * 0.01)
            site.finish(job_id, job_id)

    opening = {job_id: threading.Event() for job_id in jobs}
    finisher = threading.Thread(target=finish)
    finisher.start()
    for job_id in jobs:
        opening[job_id].set()
        began = time.monotonic()
        with stream(visitor, f"/jobs/{job_id}/events") as live:
            *_, (_, job, _), (end, _, _) = live
        assert (job["state"], job["result"], end) == ("succeeded", job_id, "end")
        # By the event, not by the look that comes every five seconds.
        assert time.monotonic() - began < 3
    finisher.join()


def test_lines_that_are_dropped_are_counted(valkey: Valkey, tmp_path: Path) -> None:
    site = Site(valkey.url, tmp_path, max_log_lines=20)
    with site.served():
        visitor = site.visitor()
        job_id = start(site, visitor)
        site.run(job_id)
        site.say(job_id, *(str(number) for number in range(1, 51)))
        with stream(visitor, f"/jobs/{job_id}/events") as live:
            _, job, last_id = next(live)
        page = visitor.get(f"/jobs/{job_id}", headers={"Accept": "text/html"}).text
    assert (job["log_lines"], job["log_dropped"]) == (50, 30)
    assert [line["seq"] for line in job["logs"]] == list(range(31, 51))
    assert last_id.endswith("~50")
    assert "The first 30 lines are no longer kept." in page


def test_many_changes_are_few_messages(site: Site) -> None:
    visitor = site.visitor()
    job_id = start(site, visitor)
    site.run(job_id)
    with stream(visitor, f"/jobs/{job_id}/events") as live:
        next(live)
        began = time.monotonic()
        for number in range(500):
            site.say(job_id, f"line {number}", done=number, total=500)
        site.finish(job_id, "ok")
        messages = [job for name, job, _ in live if name == "job"]
        took = time.monotonic() - began
    assert len(messages) <= took * 10 + 3
    assert [line["seq"] for job in messages for line in job["logs"]] == list(range(1, 501))


def test_nothing_new_is_not_sent(site: Site) -> None:
    """A change that reads the same, such as a line in a list that shows none."""
    visitor = site.visitor()
    job_id = start(site, visitor)
    site.run(job_id)
    site.say(job_id, done=1, total=2)
    with stream(visitor, f"/jobs/{job_id}/events") as live:
        _, job, _ = next(live)
        before = job.pop("expected_at")
        site.store.call("HSET", site.store.keys.job(job_id), "request_id", "r")
        site.say(job_id, done=1, total=2)
        site.store.cancel(job_id, "somebody", REVOKED)
        _, job, _ = next(live)
        assert job["view"]["word"] == "Stopping"
        assert (before, job["progress"]["done"]) == (None, 1)


def test_a_worker_that_goes_is_noticed(valkey: Valkey, tmp_path: Path) -> None:
    """No job changes when its worker dies, so that no event tells of it."""
    site = Site(valkey.url, tmp_path)
    site.worker()
    job_id = site.enqueue()
    site.run(job_id)
    with site.app.test_request_context():
        streams = Streams(site.control, seen_of(site.control), 1, recheck=0.1)
        live = events(
            line
            for text in streams.events(JobWatch(site.control, job_id, Links("/j"), 0, False))
            for line in text.split("\n")
        )
        assert next(live)[1]["waiting_for"] == ""
        site.store.beat(WORKER, 0)
        assert next(live)[1]["waiting_for"] == "lost"
        site.worker()
        assert next(live)[1]["waiting_for"] == ""


def watched(site: Site, job_id: str, **options: t.Any) -> list[str]:
    """The names of all events of a stream with other timings."""
    watch = JobWatch(site.control, job_id, Links("/j"), 0, False)
    streams = Streams(site.control, seen_of(site.control), 1, **options)
    text = "".join(streams.events(watch))
    return [name for name, _, _ in events(text.split("\n"))]


def test_a_silent_job_gives_signs_of_life_until_the_stream_ends(site: Site) -> None:
    began = time.monotonic()
    names = watched(site, site.enqueue(), lifetime=0.5, heartbeat=0.1, recheck=0.05)
    assert 0.45 <= time.monotonic() - began < 3
    assert names[0] == "job"
    assert 2 <= names.count("comment") == names.count("beat") <= 5
    assert "end" not in names


def test_a_record_that_expires(site: Site) -> None:
    visitor = site.visitor()
    job_id = start(site, visitor)
    with stream(visitor, f"/jobs/{job_id}/events") as live:
        next(live)
        site.store.call("DEL", site.store.keys.job(job_id))
        assert [name for name, _, _ in live] == ["gone", "end"]


def test_the_server_goes_away(own_valkey: Valkey, tmp_path: Path) -> None:
    site = Site(own_valkey.url, tmp_path)
    with site.served():
        visitor = site.visitor()
        job_id = start(site, visitor)
        with stream(visitor, f"/jobs/{job_id}/events") as live:
            next(live)
            own_valkey.stop()
            # No "end": the page comes back, and learns that nobody can tell.
            assert list(live) == []
        assert visitor.get(f"/jobs/{job_id}/events").status_code == 503
        own_valkey.start()
        wait_until(lambda: visitor.get(f"/jobs/{job_id}").status_code == 200)
        with stream(visitor, f"/jobs/{job_id}/events") as live:
            next(live)
            site.run(job_id)
            assert next(live)[1]["state"] == "running"
