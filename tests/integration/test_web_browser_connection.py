"""How the page in a real browser keeps up to date, and says so when it cannot."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from waiting import wait_until
from web_app import Site
from web_browser import open_job, part, untouched

if t.TYPE_CHECKING:
    from servers import Valkey

pytest_plugins = ["web_fixtures"]


def streams_held(site: Site) -> int:
    """How many streams the process holds."""
    return site.streams.board.readers


def test_where_no_stream_can_be_held_the_page_polls(
    valkey: Valkey, tmp_path: Path, page: Page
) -> None:
    site = Site(valkey.url, tmp_path)
    site.worker()
    with site.served(threaded=False):
        job_id = open_job(site, page)
        site.run(job_id)
        expect(part(page, "word")).to_have_text("Working")
        site.say(job_id, "one", "two", message="Reading")
        expect(part(page, "text")).to_have_text("Reading")
        site.say(job_id, "three", message="Writing")
        site.finish(job_id, "Sent.")
        expect(part(page, "result")).to_have_text("Sent.")
        expect(part(page, "lost")).to_be_hidden()
        part(page, "log").locator("summary").click()
        expect(page.locator(".offload-log li span")).to_have_text(["one", "two", "three"])
        assert untouched(page)
        # Polling has ended with the job.
        with pytest.raises(PlaywrightTimeoutError), page.expect_request("**", timeout=3_000):
            pass


def test_a_connection_that_is_lost_is_said_to_be(
    own_valkey: Valkey, tmp_path: Path, page: Page
) -> None:
    site = Site(own_valkey.url, tmp_path)
    site.worker()
    with site.served():
        job_id = open_job(site, page)
        site.run(job_id)
        expect(part(page, "word")).to_have_text("Working")
        own_valkey.stop()
        expect(page.get_by_text("Connection lost. Trying again…")).to_be_visible(timeout=15_000)
        own_valkey.start()
        expect(part(page, "lost")).to_be_hidden(timeout=30_000)
        site.worker()
        site.finish(job_id, "Sent.")
        expect(part(page, "result")).to_have_text("Sent.", timeout=15_000)
        assert untouched(page)


def test_a_hidden_tab_holds_no_stream(site: Site, page: Page) -> None:
    job_id = open_job(site, page)
    wait_until(lambda: streams_held(site) == 1)
    hide = """hidden => {
        Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    # The server learns of it when it next has something to say.
    site.run(job_id)
    site.say(job_id, message="Reading")
    wait_until(lambda: streams_held(site) == 0)
    expect(part(page, "word")).to_have_text("Waiting")
    page.evaluate(hide, False)
    expect(part(page, "text")).to_have_text("Reading")
    assert streams_held(site) == 1


def test_a_job_that_is_no_longer_kept(site: Site, page: Page) -> None:
    job_id = open_job(site, page)
    expect(part(page, "word")).to_have_text("Waiting")
    site.store.call("DEL", site.store.keys.job(job_id))
    site.store.call(
        "XADD", site.store.keys.events, "*", "job", job_id, "kind", "gone"
    )  # so that the test need not wait for the next look
    expect(part(page, "gone")).to_contain_text("This job is no longer kept")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()


def test_the_list_polls_too(valkey: Valkey, tmp_path: Path, page: Page) -> None:
    site = Site(valkey.url, tmp_path)
    with site.served(threaded=False):
        job_id = open_job(site, page)
        page.goto(f"{site.url}/mine")
        row = page.locator(f"li[data-id='{job_id}']")
        expect(row).to_contain_text("Waiting")
        site.run(job_id)
        site.finish(job_id, "Sent.")
        expect(row).to_contain_text("Done in")
