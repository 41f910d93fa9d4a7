"""What others may not do, and what the owner may: to see a job, and to stop it."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
from flask_wtf import CSRFProtect

from flask_offload import JobState
from web_app import Site, start

if t.TYPE_CHECKING:
    from servers import Valkey

pytest_plugins = ["web_fixtures"]


def hidden(html: str) -> dict[str, str]:
    """The hidden fields of the form on a page."""
    return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', html))


ODD = ["..", "../x", "%2e%2e%2fx", "..%5Cx", "%00", "a%00b", "%0a", "%ff", "%F0%9F%92%A9", "%20"]
ODD += ["events", "static", "{x}", "*", "x" * 10_000]


@pytest.mark.parametrize("job_id", ODD)
@pytest.mark.parametrize("path", ["", "/events", "/files/x", "/files/..%2f..%2fx", "/cancel"])
def test_odd_ids_are_not_found(site: Site, job_id: str, path: str) -> None:
    method = "POST" if path == "/cancel" else "GET"
    with site.app.test_client() as client:
        # The test client sends what httpx would tidy up.
        response = client.open(f"/jobs/{job_id}{path}", method=method)
        assert response.status_code == 404
        assert client.get("/jobs/events", query_string={"id": job_id}).status_code == 404


def test_stop_what_waits(site: Site) -> None:
    browser = site.browser()
    url = f"/jobs/{start(site, browser)}"
    response = browser.post(f"{url}/cancel")
    assert (response.status_code, response.headers["Location"]) == (303, url)
    assert "Stopped by you at" in browser.get(url).text


def test_stop_what_runs(site: Site) -> None:
    visitor = site.visitor()
    job_id = start(site, visitor)
    site.run(job_id)
    job = visitor.post(f"/jobs/{job_id}/cancel").json()
    assert (job["state"], job["text"], job["cancel_url"]) == ("running", "Stopping", None)
    assert site.engine.stopped == [job_id]
    site.finish(job_id, state="cancelled")
    assert visitor.get(f"/jobs/{job_id}").json()["text"].startswith("Stopped by you")


def test_what_is_over_stays_as_it_is(site: Site) -> None:
    visitor = site.visitor()
    job_id = start(site, visitor)
    site.run(job_id)
    site.finish(job_id, 42)
    job = visitor.post(f"/jobs/{job_id}/cancel").json()
    assert (job["state"], job["result"]) == ("succeeded", 42)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_only_post_changes_state(site: Site, method: str) -> None:
    visitor = site.visitor()
    job_id = start(site, visitor)
    assert visitor.request(method, f"/jobs/{job_id}/cancel").status_code == 405
    assert visitor.head(f"/jobs/{job_id}").status_code == 200
    assert site.store.get(job_id).state is JobState.QUEUED


def test_a_page_of_somebody_else_cannot_stop_it(site: Site) -> None:
    browser = site.browser()
    job_id = start(site, browser)
    evil = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    response = browser.post(f"/jobs/{job_id}/cancel", headers=evil)
    assert response.status_code == 403
    assert "This was not done" in response.text
    assert site.store.get(job_id).state is JobState.QUEUED


def test_an_old_browser_stops_it_by_the_token_of_the_form(site: Site) -> None:
    browser = site.browser()
    job_id = start(site, browser)
    del browser.headers["Sec-Fetch-Site"]
    assert browser.post(f"/jobs/{job_id}/cancel").status_code == 403
    fields = hidden(browser.get(f"/jobs/{job_id}").text)
    assert browser.post(f"/jobs/{job_id}/cancel", data=fields).status_code == 303
    assert site.store.get(job_id).state is JobState.CANCELLED


def test_the_form_works_where_flask_wtf_guards_the_app(valkey: Valkey, tmp_path: Path) -> None:
    site = Site(valkey.url, tmp_path)
    protect = CSRFProtect(site.app)
    protect.exempt(site.app.view_functions["_start"])
    with site.served():
        browser = site.browser()
        job_id = start(site, browser)
        fields = hidden(browser.get(f"/jobs/{job_id}").text)
        assert set(fields) == {"offload_token", "csrf_token"}
        assert browser.post(f"/jobs/{job_id}/cancel").status_code == 400
        assert browser.post(f"/jobs/{job_id}/cancel", data=fields).status_code == 303
