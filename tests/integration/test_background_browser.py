"""Background views in a real Chromium, from a real server."""

from __future__ import annotations

import typing as t

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

import servers
from background import Views

pytest_plugins = ["background_fixtures", "web_fixtures"]


@pytest.fixture(scope="module")
def address(views: Views) -> t.Iterator[str]:
    app = views.make(WTF_CSRF_CHECK_DEFAULT=True)
    with servers.web(app) as address:
        yield address


def test_the_page_moves_on_to_the_response(page: Page, views: Views, address: str) -> None:
    page.goto(f"{address}/form?action=/slow&gate=moved")
    form = page.url
    page.get_by_role("button", name="Send").click()
    page.wait_for_url("**/jobs/*")
    expect(page.get_by_role("heading", name="Slow")).to_be_visible()
    views.open_gate("moved")
    page.wait_for_url("**/response")
    assert page.inner_text("body") == "slow is done"
    # The page of the job has given way to the response, so Back leads to the form.
    page.go_back()
    assert page.url == form


def test_a_first_double_click_gives_one_job(page: Page, views: Views, address: str) -> None:
    page.goto(f"{address}/form?action=/slow&gate=double-click")
    before = len(views.lines("slow"))
    page.get_by_role("button", name="Send").dblclick()
    page.wait_for_url("**/jobs/*")
    views.open_gate("double-click")
    page.wait_for_url("**/response")
    assert page.inner_text("body") == "slow is done"
    assert len(views.lines("slow")) == before + 1


def test_a_download_leaves_the_page_with_a_link(page: Page, views: Views, address: str) -> None:
    with page.expect_download() as download:
        page.goto(f"{address}/slow-file")
        views.open_gate("file")
    assert download.value.suggested_filename == "rows.csv"
    link = page.get_by_role("link", name="Show the answer")
    expect(link).to_be_visible()
    assert page.url.endswith(str(link.get_attribute("href")).removesuffix("/response"))


def test_a_failed_view_shows_the_apps_own_page(page: Page, address: str) -> None:
    page.goto(f"{address}/fail/broken")
    page.wait_for_url("**/response")
    assert page.inner_text("body") == "sorry: RuntimeError"


def test_without_javascript(browser: Browser, views: Views, address: str) -> None:
    context: BrowserContext = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/slow?gate=plain")
    page.wait_for_url("**/jobs/*")
    views.open_gate("plain")
    page.wait_for_url("**/response", timeout=15_000)
    assert page.inner_text("body") == "slow is done"
    context.close()


def test_a_list_goes_on_polling(page: Page, views: Views, address: str) -> None:
    """Where no stream can be had, a list reads each job as JSON, also one that has a response."""
    page.route("**/events*", lambda route: route.fulfill(status=204))
    page.goto(f"{address}/slow?gate=listed")
    page.wait_for_url("**/jobs/*")
    page.goto(f"{address}/list")
    row = page.get_by_role("listitem").filter(has_text="Slow").first
    expect(row).to_contain_text("Working")
    views.open_gate("listed")
    expect(row).to_contain_text("Done")
    expect(page.get_by_text("Connection lost")).to_be_hidden()
