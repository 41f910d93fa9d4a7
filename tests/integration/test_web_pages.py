"""The job page, its JSON, files and the list, over HTTP."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import httpx
import pytest
from flask import Flask, render_template_string

from flask_offload import EnqueueError, PayloadTooLarge
from web_app import WORKER, Site, start

if t.TYPE_CHECKING:
    from servers import Valkey

pytest_plugins = ["web_fixtures"]


# -- the page and its JSON


def test_first_contact_leads_to_a_clean_address(site: Site) -> None:
    browser = site.browser()
    response = browser.post("/go", follow_redirects=True)
    assert response.status_code == 200
    assert [r.status_code for r in response.history] == [303, 303]
    assert "key=" in str(response.history[1].url)
    assert "key=" not in str(response.url)
    assert "key=" not in response.text
    first, second = sorted(browser.cookies)
    assert (first, second[:14]) == ("offload_key", "offload_owner_")
    # From now on the cookie does, and no key travels.
    assert "key=" not in browser.post("/go").headers["Location"]


def test_html_or_json_by_accept(site: Site) -> None:
    visitor = site.visitor()
    job_id = start(site, visitor)
    answer = visitor.get(f"/jobs/{job_id}")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["state"] == "queued"
    page = visitor.get(f"/jobs/{job_id}", headers={"Accept": "text/html"})
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    anything = visitor.get(f"/jobs/{job_id}", headers={"Accept": "*/*"})
    assert anything.headers["Content-Type"] == "text/html; charset=utf-8"
    for response in (answer, page):
        assert response.headers["Vary"] == "Accept, Cookie"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Referrer-Policy"] == "same-origin"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "script-src 'self'" in response.headers["Content-Security-Policy"]


def test_a_page_without_script_comes_back_until_the_end(site: Site) -> None:
    browser = site.browser()
    job_id = start(site, browser)
    assert '<meta http-equiv="refresh" content="3">' in browser.get(f"/jobs/{job_id}").text
    site.run(job_id)
    site.finish(job_id, "Sent.")
    page = browser.get(f"/jobs/{job_id}").text
    assert "refresh" not in page
    assert '<p class="offload-prose">Sent.</p>' in page
    assert "Done in" in page


def test_nothing_that_a_job_says_becomes_html(site: Site) -> None:
    browser = site.browser()
    evil = "<script>alert(1)</script>\"'&"
    job_id = start(site, browser, title=evil)
    site.run(job_id)
    site.say(job_id, evil, message=evil)
    site.attach(job_id, evil + ".txt", b"x")
    for end in (
        lambda: None,
        lambda: site.finish(job_id, {evil: evil}),
    ):
        end()
        for path in (f"/jobs/{job_id}", "/mine"):
            page = browser.get(path).text
            assert "<script>alert" not in page
            assert "&lt;script&gt;alert(1)" in page


def test_what_is_no_text_is_shown_still(site: Site) -> None:
    browser = site.browser()
    job_id = start(site, browser)
    site.run(job_id)
    site.finish(job_id, ["half a pair: \ud800", float("nan")])
    page = browser.get(f"/jobs/{job_id}")
    assert page.status_code == 200
    assert "half a pair: ?" in page.text
    answer = browser.get(f"/jobs/{job_id}?format=json")
    assert answer.json()["result"] == ["half a pair: \ud800", None]


def test_log_lines_after_a_number(site: Site) -> None:
    visitor = site.visitor()
    job_id = start(site, visitor)
    site.run(job_id)
    site.say(job_id, "one", "two", "three")
    url = f"/jobs/{job_id}"
    assert "logs" not in visitor.get(url).json()
    logs = visitor.get(url, params={"logs_after": 1}).json()["logs"]
    assert [(line["seq"], line["text"]) for line in logs] == [(2, "two"), (3, "three")]
    assert len(visitor.get(url, params={"logs_after": -5}).json()["logs"]) == 3
    assert "logs" not in visitor.get(url, params={"logs_after": "x"}).json()


def test_a_client_without_cookies(site: Site) -> None:
    with site.visitor() as client:
        started = client.post("/start").json()
    bare = {"Accept": "application/json"}
    job = httpx.get(site.url + started["url"], headers=bare).json()
    assert job["state"] == "queued"
    assert job["url"] == started["url"]
    answer = httpx.post(site.url + job["cancel_url"], headers=bare)
    assert answer.json()["state"] == "cancelled"
    assert answer.json()["text"].startswith("Stopped by you")


def test_no_worker(site: Site) -> None:
    site.store.beat(WORKER, 0)
    visitor = site.visitor()
    url = f"/jobs/{start(site, visitor)}"
    job = visitor.get(url).json()
    assert (job["waiting_for"], job["text"]) == ("none", "Waiting. No worker is running")
    site.debug = True
    html = visitor.get(url, headers={"Accept": "text/html"}).text
    assert "start one with <code>flask offload worker</code>" in html


# -- errors


def test_the_server_is_away(own_valkey: Valkey, tmp_path: Path) -> None:
    site = Site(own_valkey.url, tmp_path)
    with site.served():
        visitor, browser = site.visitor(), site.browser()
        job_id = start(site, visitor)
        own_valkey.stop()
        answer = visitor.get(f"/jobs/{job_id}")
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "5"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json()["error"].startswith("Jobs cannot be shown right now.")
        page = browser.get(f"/jobs/{job_id}")
        assert page.status_code == 503
        assert "<h1>Jobs cannot be shown right now</h1>" in page.text
        assert own_valkey.url not in page.text
        assert visitor.get(f"/jobs/{job_id}/events").status_code == 503
        # A page of the developer's loses the list, not itself.
        browser.cookies = visitor.cookies
        mine = browser.get("/mine")
        assert mine.status_code == 200
        assert "The list cannot be shown right now." in mine.text


@pytest.fixture
def failing(site: Site) -> Flask:
    def fail(error: Exception) -> t.Callable[[], t.NoReturn]:
        def view() -> t.NoReturn:
            raise error

        return view

    site.app.add_url_rule("/full", "full", fail(EnqueueError("redis://secret", retry_after=7)))
    site.app.add_url_rule("/large", "large", fail(PayloadTooLarge("2,000 bytes. OFFLOAD_MAX")))
    return site.app


def test_an_enqueue_that_failed(site: Site, failing: Flask) -> None:
    page = site.browser().get("/full")
    assert (page.status_code, page.headers["Retry-After"]) == (503, "7")
    assert "<h1>This could not be started</h1>" in page.text
    assert "secret" not in page.text
    answer = site.visitor().get("/full")
    assert answer.json() == {
        "error": "This could not be started. Nothing was changed. "
        "Wait a few seconds and try again.",
        "status": 503,
    }
    assert site.visitor().get("/large").status_code == 413


def test_the_developer_reads_why(site: Site, failing: Flask) -> None:
    site.app.debug = True
    assert "<code>redis://secret</code>" in site.browser().get("/full").text
    assert site.visitor().get("/large").json()["detail"] == "2,000 bytes. OFFLOAD_MAX"


# -- static files and the list


def test_static_files_are_kept_until_they_change(site: Site) -> None:
    browser = site.browser()
    page = browser.get(f"/jobs/{start(site, browser)}").text
    urls = re.findall(r'(?:href|src)="(/jobs/static/[^"]+)"', page)
    assert len(urls) == 4
    for url in urls:
        response = browser.get(url)
        assert "immutable" in response.headers["Cache-Control"]
        assert "max-age=31536000" in response.headers["Cache-Control"]
        again = browser.get(url, headers={"If-None-Match": response.headers["ETag"]})
        assert again.status_code == 304
    old = browser.get("/jobs/static/0123456789ab/offload.js")
    assert old.status_code == 200
    assert "immutable" not in old.headers["Cache-Control"]
    assert "max-age=0" in old.headers["Cache-Control"] or "no-cache" in old.headers["Cache-Control"]
    for name in ("..%2fjobs.py", "jobs.py", "%2e%2e", "x"):
        assert browser.get(f"/jobs/static/0123456789ab/{name}").status_code == 404


def test_scripts_import_each_other_only(site: Site) -> None:
    browser = site.browser()
    page = browser.get(f"/jobs/{start(site, browser)}").text
    (entry,) = re.findall(r'src="(/jobs/static/\w+/)offload.js"', page)
    queue, seen = ["offload.js"], set()
    while queue:
        name = queue.pop()
        if name not in seen:
            seen.add(name)
            source = browser.get(entry + name)
            assert source.status_code == 200, name
            assert "innerHTML" not in source.text
            queue += re.findall(r'from "\./([\w.]+)"', source.text)
    assert seen == {"actions.js", "live.js", "log.js", "nodes.js", "offload.js", "times.js"}


def test_the_list_has_my_jobs_newest_first(site: Site) -> None:
    browser, other = site.browser(), site.browser()
    assert "No jobs yet. Press a button above." in browser.get("/mine").text
    start(site, other, title="Not mine")
    ids = [start(site, browser, title=f"Job {n}") for n in range(3)]
    site.run(ids[0])
    site.finish(ids[0])
    html = browser.get("/mine").text
    assert re.findall(r'data-part="title">([^<]+)<', html) == ["Job 2", "Job 1", "Job 0"]
    assert "Not mine" not in html
    (stream,) = re.findall(r'<offload-jobs class="offload-list" href="([^"]*)"', html)
    # What is over needs no stream.
    assert stream == f"/jobs/events?id={ids[2]}&amp;id={ids[1]}"


def test_the_list_shows_what_this_request_has_just_started(site: Site) -> None:
    def view() -> str:
        site.enqueue(owners=site.access.identify(), title="Just now")
        return render_template_string("{{ jobs }}", jobs=site.jobs(1))

    site.app.add_url_rule("/both", view_func=view)
    html = site.browser().get("/both").text
    assert "Just now" in html
    # Its cookie is on the way only; until it has come, the key opens the page.
    assert re.search(r'<a href="/jobs/[^"]+\?key=', html)
