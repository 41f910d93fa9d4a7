"""The job page and the list in a real browser."""

from __future__ import annotations

import typing as t

import pytest
from playwright.sync_api import Browser, Page, expect

from flask_offload import JobState
from web_app import Site
from web_browser import open_job, part, untouched

if t.TYPE_CHECKING:
    pass

pytest_plugins = ["web_fixtures"]


def test_a_job_moves_and_its_result_appears_without_a_reload(site: Site, page: Page) -> None:
    job_id = open_job(site, page)
    expect(part(page, "word")).to_have_text("Waiting")
    expect(part(page, "text")).to_have_text("Waiting in line")
    expect(page).to_have_title("Waiting · Monthly report")
    site.run(job_id)
    expect(part(page, "word")).to_have_text("Working")
    # Activity, as nobody knows the total.
    expect(part(page, "bar")).to_be_visible()
    expect(part(page, "bar")).not_to_have_attribute("value", "0")
    assert part(page, "bar").evaluate("bar => bar.position") == -1
    site.say(job_id, "first line", done=6, total=24, message="Reading")
    expect(part(page, "text")).to_have_text("Reading")
    expect(part(page, "meta")).to_contain_text("6 of 24")
    expect(part(page, "bar")).to_have_js_property("value", 0.25)
    expect(page).to_have_title("25% · Monthly report")
    expect(part(page, "lines")).to_have_text("1 line")
    site.attach(job_id, "report.txt", b"the report")
    expect(page.get_by_role("link", name="report.txt")).to_be_visible()
    site.finish(job_id, {"rows": 24})
    expect(part(page, "result")).to_contain_text("rows 24")
    expect(part(page, "text")).to_contain_text("Done in")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(part(page, "bar")).to_be_hidden()
    expect(page).to_have_title("Done · Monthly report")
    assert untouched(page)


RESULTS = [
    ("Sent to <b>ada</b>.\nTwice.", "p.offload-prose", "Sent to <b>ada</b>.\nTwice."),
    ("https://example.org/x", "a[href='https://example.org/x']", "https://example.org/x"),
    ({"name": "report.txt"}, "a[href$='/files/report.txt']", "report.txt"),
    ([9007199254740993], ".offload-leaf", "1 9007199254740993"),
    ([{"a": 1, "b": "<i>"}], "tbody tr", "1<i>"),
]


@pytest.mark.parametrize(("result", "selector", "text"), RESULTS)
def test_script_and_server_show_the_same(
    site: Site, page: Page, result: t.Any, selector: str, text: str
) -> None:
    job_id = open_job(site, page)
    site.run(job_id, max_retries=2)
    site.attach(job_id, "report.txt", b"the report")
    site.say(job_id, "one", "two", message="Reading")
    site.finish(job_id, result)
    expect(part(page, "result").locator(selector)).to_have_text(text)
    expect(part(page, "lines")).to_have_text("2 lines")
    # A file is there before the job is done, and what it does until then.
    expect(part(page, "text")).to_contain_text("Done in")
    expect(page.locator("offload-job")).not_to_contain_text("Reading")
    # Reloaded, the server renders it; what can be read must not differ.
    for details in ("log", "details"):
        part(page, details).locator("summary").click()
    live = page.locator("offload-job").inner_text()
    page.reload()
    expect(part(page, "result").locator(selector)).to_have_text(text)
    assert page.locator("offload-job").inner_text() == live


def test_a_failure_opens_the_log_once(site: Site, page: Page) -> None:
    job_id = open_job(site, page)
    site.run(job_id)
    site.say(job_id, "asking", "no answer")
    expect(part(page, "lines")).to_have_text("2 lines")
    expect(part(page, "log")).not_to_have_attribute("open", "")
    site.finish(job_id, state="failed", error="KeyError: 'x'")
    expect(part(page, "text")).to_have_text("This did not work. Nothing more was changed.")
    expect(part(page, "reference")).to_contain_text(job_id)
    expect(page.get_by_text("no answer")).to_be_visible()
    # What the reader closes stays closed.
    part(page, "log").locator("summary").click()
    page.reload()
    expect(part(page, "log")).not_to_have_attribute("open", "")


def test_times_are_the_readers(site: Site, page: Page) -> None:
    open_job(site, page)
    job_id = site.enqueue(
        owners=site.store.newest(limit=1)[0].owners, state=JobState.SCHEDULED, delay=3 * 86_400
    )
    page.goto(f"{site.url}/jobs/{job_id}")
    due = site.store.get(job_id).due_at
    there = page.evaluate(
        "at => new Date(at * 1000).toLocaleString([], "
        "{day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit'})",
        due,
    )
    expect(part(page, "text")).to_have_text(f"Starts at {there}")
    assert "UTC" not in page.locator("offload-job").inner_text()


# -- to stop a job


def test_stop_asks_first(site: Site, page: Page) -> None:
    job_id = open_job(site, page)
    stop = page.get_by_role("button", name="Stop Monthly report")
    stop.click()
    expect(page.get_by_role("button", name="Keep it")).to_be_focused()
    page.get_by_role("button", name="Keep it").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    stop.click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert site.store.get(job_id).state is JobState.QUEUED
    stop.click()
    page.get_by_role("button", name="Stop it").click()
    expect(part(page, "text")).to_contain_text("Stopped by you at")
    assert untouched(page)
    assert site.store.get(job_id).state is JobState.CANCELLED


def test_stop_without_script(site: Site, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}/go")
    page.get_by_role("button", name="Stop").click()
    expect(part(page, "text")).to_contain_text("Stopped by you at")
    context.close()


def test_without_script_the_page_comes_back_by_itself(site: Site, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}/go")
    job_id = page.url.rpartition("/")[2]
    site.run(job_id)
    site.finish(job_id, "Sent.")
    expect(page.get_by_text("Sent.")).to_be_visible(timeout=10_000)
    context.close()


# -- the list


def test_the_list_is_live(site: Site, page: Page) -> None:
    one, two = open_job(site, page), open_job(site, page)
    page.goto(f"{site.url}/mine")
    page.evaluate("window.untouched = true")
    rows = {i: page.locator(f"li[data-id='{i}']") for i in (one, two)}
    expect(rows[one]).to_contain_text("in line")
    site.run(one)
    site.say(one, done=1, total=4, message="Reading")
    expect(rows[one].locator("[data-part=text]")).to_have_text("Reading")
    expect(rows[one].locator("[data-part=meta]")).to_contain_text("1 of 4")
    expect(rows[one].locator("progress")).to_have_js_property("value", 0.25)
    site.finish(one, "Sent.")
    expect(rows[one]).to_contain_text("Done in")
    rows[two].get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Stop it").click()
    expect(rows[two]).to_contain_text("Stopped by you at")
    assert untouched(page)
    rows[one].get_by_role("link").click()
    expect(page.get_by_text("Sent.")).to_be_visible()


# -- how it looks, as far as that can be measured


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_small_phone(
    site: Site, browser: Browser, scheme: t.Literal["light", "dark"]
) -> None:
    context = browser.new_context(viewport={"width": 320, "height": 640}, color_scheme=scheme)
    page = context.new_page()
    job_id = open_job(site, page)
    site.run(job_id, title="A")
    site.attach(job_id, "y" * 100 + ".pdf", b"x")
    site.say(job_id, "x" * 500, done=1, total=3, message="x" * 200)
    expect(part(page, "lines")).to_have_text("1 line")
    part(page, "log").locator("summary").click()
    for end in (lambda: None, lambda: site.finish(job_id, {"a": "x" * 500})):
        end()
        for path in (page.url, f"{site.url}/mine"):
            page.goto(path)
            over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(over) <= 0
        page.goto(f"{site.url}/jobs/{job_id}")
    context.close()
