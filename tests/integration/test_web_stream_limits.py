"""How many streams there are, and streams for lists."""

from __future__ import annotations

import typing as t
from pathlib import Path

from werkzeug.test import EnvironBuilder, run_wsgi_app

from event_stream import stream
from flask_offload import JobState
from waiting import wait_until
from web_app import Site, start

if t.TYPE_CHECKING:
    from servers import Valkey

pytest_plugins = ["web_fixtures"]


def test_beyond_the_cap_the_page_polls(valkey: Valkey, tmp_path: Path) -> None:
    site = Site(valkey.url, tmp_path, max_streams=2)
    with site.served():
        visitor = site.visitor()
        job_id = start(site, visitor)
        url = f"/jobs/{job_id}/events"
        with stream(visitor, url) as one, stream(visitor, url) as two:
            next(one), next(two)
            assert visitor.get(url).status_code == 204
            assert visitor.head(url).status_code == 200
        # The server notices that they left when it next has something to say.
        site.run(job_id)
        site.finish(job_id, 1)
        wait_until(lambda: visitor.get(url).status_code == 200)


def test_a_stream_that_is_never_read_frees_its_place(valkey: Valkey, tmp_path: Path) -> None:
    site = Site(valkey.url, tmp_path, max_streams=1)
    job_id = site.enqueue()
    key = "?key=" + site.access._signer("key").get_signature(job_id).decode()
    for _ in range(3):
        builder = EnvironBuilder(path=f"/jobs/{job_id}/events{key}", multithread=True)
        body, status, _ = run_wsgi_app(site.app, builder.get_environ())
        assert status == "200 OK"
        body.close()  # type: ignore[attr-defined]


def test_a_server_with_one_thread_holds_no_stream(valkey: Valkey, tmp_path: Path) -> None:
    site = Site(valkey.url, tmp_path)
    with site.served(threaded=False):
        visitor = site.visitor()
        assert visitor.get(f"/jobs/{start(site, visitor)}/events").status_code == 204


# -- lists


def test_one_stream_for_a_list(site: Site) -> None:
    visitor, other = site.visitor(), site.visitor()
    mine = [start(site, visitor) for _ in range(3)]
    foreign = start(site, other)
    url = "/jobs/events?" + "&".join(f"id={i}" for i in (*mine, foreign, "unknown", "%00"))
    with stream(visitor, url) as live:
        first = [next(live)[1] for _ in mine]
        assert [job["id"] for job in first] == mine
        for job_id in mine:
            site.run(job_id)
            site.finish(job_id, "a result")
        rest = list(live)
    assert rest[-1][0] == "end"
    last = {job["id"]: job for name, job, _ in rest if name == "job"}
    assert set(last) == set(mine)
    assert all(job["state"] == JobState.SUCCEEDED for job in last.values())
    # Lists are for states; results may be large.
    assert {job["result"] for job in last.values()} == {None}


def test_a_list_has_a_limit(site: Site) -> None:
    visitor = site.visitor()
    mine = [start(site, visitor) for _ in range(51)]
    for job_id in mine:
        site.run(job_id)
        site.finish(job_id)
    with stream(visitor, "/jobs/events?" + "&".join(f"id={i}" for i in mine)) as live:
        assert [job["id"] for name, job, _ in live if name == "job"] == mine[:50]


def test_a_job_of_the_list_that_expires(site: Site) -> None:
    visitor = site.visitor()
    one, two = start(site, visitor), start(site, visitor)
    with stream(visitor, f"/jobs/events?id={one}&id={two}") as live:
        next(live), next(live)
        site.store.call("DEL", site.store.keys.job(one))
        site.run(two)
        site.finish(two)
        rest = list(live)
    assert [data["id"] for name, data, _ in rest if name == "gone"] == [one]
    assert rest[-1][0] == "end"


def test_one_owner_holds_a_few_streams_only(valkey: Valkey, tmp_path: Path) -> None:
    site = Site(valkey.url, tmp_path, max_streams_per_owner=2)
    with site.served():
        visitor, other = site.visitor(), site.visitor()
        job_id, others = start(site, visitor), start(site, other)
        url = f"/jobs/{job_id}/events"
        with stream(visitor, url) as one, stream(visitor, url) as two:
            next(one), next(two)
            assert visitor.get(url).status_code == 204
            assert visitor.get(f"/jobs/events?id={job_id}").status_code == 204
            with stream(other, f"/jobs/{others}/events") as live:
                next(live)

        def admitted() -> bool:
            with visitor.stream("GET", url) as response:
                return response.status_code == 200

        # That the others have left is noticed without a word.
        wait_until(admitted)


def test_who_came_by_a_key_counts_by_the_job(valkey: Valkey, tmp_path: Path) -> None:
    site = Site(valkey.url, tmp_path, max_streams_per_owner=1)
    with site.served():
        job_id = site.enqueue()
        key = site.access._signer("key").get_signature(job_id).decode()
        url = f"/jobs/{job_id}/events?key={key}"
        with stream(site.visitor(), url) as live:
            next(live)
            assert site.visitor().get(url).status_code == 204


def test_who_loads_a_page_again_and_again_gets_a_stream(site: Site) -> None:
    visitor = site.visitor()
    job_id = start(site, visitor)
    for _ in range(30):
        with stream(visitor, f"/jobs/{job_id}/events") as live:
            assert next(live)[1]["state"] == "queued"
