"""Results by their kind, in a real browser, of jobs that a real worker ran."""

from __future__ import annotations

import typing as t

import httpx
import pytest
from playwright.sync_api import Page, expect

from page_app import Pages
from waiting import wait_until
from web_browser import part, start

pytest_plugins = ["page_fixtures", "web_fixtures"]


def test_a_table(pages: Pages, page: Page) -> None:
    rows = [{"day": "1 Oct", "orders": 7}, {"day": "<b>2 Oct", "orders": None, "note": "x"}]
    start(pages, page, "give", value=rows)
    table = part(page, "result").locator("table")
    expect(table.locator("th")).to_have_text(["day", "orders", "note"])
    expect(table.locator("tbody tr").nth(0).locator("td")).to_have_text(["1 Oct", "7", ""])
    expect(table.locator("tbody tr").nth(1).locator("td")).to_have_text(["<b>2 Oct", "", "x"])
    assert page.evaluate("window.untouched")


def test_a_tree_folds(pages: Pages, page: Page) -> None:
    start(
        pages, page, "give", value={"shop": {"name": "Berlin", "tags": [1, [2, [3]]]}, "x": "<i>"}
    )
    tree = part(page, "result").locator(".offload-tree")
    expect(tree).to_contain_text("<i>")
    expect(tree.get_by_text("Berlin")).to_be_visible()
    tree.locator("summary", has_text="shop").click()
    expect(tree.get_by_text("Berlin")).to_be_hidden()
    # By keyboard, too.
    page.keyboard.press("Enter")
    expect(tree.get_by_text("Berlin")).to_be_visible()


def test_a_picture_and_a_file_beside_it(pages: Pages, page: Page) -> None:
    start(pages, page, "draw")
    picture = part(page, "result").locator("img")
    expect(picture).to_have_attribute("alt", "picture.png")
    expect(picture).to_have_js_property("naturalWidth", 320)
    expect(part(page, "files").locator("li")).to_have_text(["numbers.csv 8 bytes"])


def test_a_pdf_is_shown_by_the_browser(pages: Pages, page: Page) -> None:
    start(pages, page, "printed")
    frame = part(page, "result").locator("iframe")
    expect(frame).to_have_attribute("title", "orders.pdf")
    url = frame.get_attribute("src") or ""
    answer = page.request.get(pages.url + url)
    assert answer.headers["content-type"] == "application/pdf"
    # The viewer of the browser has it: the frame is no error page.
    wait_until(lambda: any("/files/orders.pdf" in f.url for f in page.frames))
    page.set_viewport_size({"width": 320, "height": 640})
    expect(frame).to_be_hidden()
    expect(page.get_by_role("link", name="orders.pdf")).to_be_visible()


VALUES = [{"a": {"b": [1, None, True, "ü"]}}, [[1, 2], [3, 4]], 12.5, "https://example.org/"]


@pytest.mark.parametrize("value", VALUES)
def test_without_script_it_is_the_same(
    pages: Pages, page: Page, value: t.Any, browser: t.Any
) -> None:
    job_id = start(pages, page, "give", value=value)
    shown = part(page, "result")
    expect(shown).to_be_visible()
    state = page.context.storage_state()
    context = browser.new_context(java_script_enabled=False, storage_state=state)
    plain = context.new_page()
    plain.goto(f"{pages.url}/jobs/{job_id}")
    assert part(plain, "result").inner_text() == shown.inner_text()
    context.close()


def test_a_failure_has_one_sentence_and_details_for_the_developer_only(
    pages: Pages, page: Page
) -> None:
    start(pages, page, "break_")
    expect(part(page, "text")).to_have_text("This did not work. Nothing more was changed.")
    assert "secret" not in page.content()
    assert "KeyError" not in page.content()
    pages.app.debug = True
    try:
        page.reload()
        page.get_by_text("For the developer").click()
        expect(part(page, "error").locator("code")).to_have_text("KeyError: 'a <b>secret</b>'")
        expect(part(page, "error").locator("pre")).to_contain_text("in break_")
    finally:
        pages.app.debug = False


def test_what_a_job_says_first_stays_until_it_says_more(pages: Pages, page: Page) -> None:
    """It is said before the start is told, which clears what an attempt before has said."""
    start(pages, page, "hold", seconds=6)
    expect(part(page, "text")).to_have_text("Asking the bank")
    page.wait_for_timeout(1_000)
    expect(part(page, "text")).to_have_text("Asking the bank")


def test_the_log_is_followed_searched_and_taken_along(pages: Pages, page: Page) -> None:
    job_id = start(pages, page, "read", steps=120, pause=0.1)
    log = part(page, "log")
    expect(part(page, "lines")).not_to_have_text("0 lines")
    log.locator("summary").click()
    lines = log.locator("ol")
    at_end = "ol => ol.scrollHeight - ol.scrollTop - ol.clientHeight < 30"
    wait_until(lambda: lines.evaluate("ol => ol.scrollTop") > 0, 20)
    assert lines.evaluate(at_end)
    page.get_by_role("button", name="Pause").click()
    stands = lines.evaluate("ol => ol.scrollTop")
    count = lines.locator("li").count()
    wait_until(lambda: lines.locator("li").count() > count + 3)
    assert lines.evaluate("ol => ol.scrollTop") == stands
    page.get_by_role("button", name="Follow").click()
    assert lines.evaluate(at_end)
    # To scroll up is to read.
    lines.evaluate("ol => { ol.scrollTop = 0; }")
    expect(page.get_by_role("button", name="Follow")).to_be_visible()
    expect(part(page, "word")).to_have_text("Done", timeout=40_000)
    assert lines.evaluate("ol => ol.scrollTop") == 0
    page.get_by_role("searchbox", name="Search the log").fill("ORDER 5")
    expect(lines.locator("li:visible")).to_have_count(11)
    expect(part(page, "found")).to_have_text("11 of 120 lines")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == f"log-{job_id}.txt"
    text = download.value.path().read_text()
    assert text.splitlines()[119].endswith(" order 120 of 120")
    stranger = httpx.get(f"{pages.url}/jobs/{job_id}/log.txt", timeout=20)
    assert stranger.status_code == 404
