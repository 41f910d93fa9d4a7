"""Nothing keeps people from using a page: each state, light and dark, wide and narrow."""

from __future__ import annotations

import typing as t
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page, expect

from axe import violations
from page_app import Pages
from web_browser import part, start

pytest_plugins = ["page_fixtures", "web_fixtures"]

TABLE = [{"day": f"2026-10-{day:02}", "orders": day} for day in range(1, 31)]
TREE = {"shop": {"name": "Berlin", "open": True, "tags": ["a", None]}, "orders": 12.5}


def wait_for(word: str) -> Callable[[Page], None]:
    return lambda page: expect(part(page, "word")).to_have_text(word, timeout=30_000)


def open_log(page: Page) -> None:
    expect(part(page, "lines")).not_to_have_text("0 lines")
    part(page, "log").locator("summary").click()
    part(page, "details").locator("summary").click()


def ask(page: Page) -> None:
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def result(page: Page) -> None:
    wait_for("Done")(page)
    expect(part(page, "result")).to_be_visible()


#: What is started, and what is done until it looks as it is to look.
STATES: dict[str, tuple[str, dict[str, t.Any], list[Callable[[Page], None]]]] = {
    "waiting": ("elsewhere", {}, [wait_for("Waiting")]),
    "asked": ("elsewhere", {}, [ask]),
    "activity": ("hold", {"seconds": 2}, [wait_for("Working")]),
    "running": ("read", {"steps": 30, "pause": 0.1}, [wait_for("Working"), open_log]),
    "retrying": ("flaky", {}, [wait_for("Trying again")]),
    "failed": ("refuse", {"month": "2026-12"}, [wait_for("Failed")]),
    "text": ("give", {"value": "Sent."}, [result]),
    "link": ("give", {"value": "https://example.org/"}, [result]),
    "table": ("give", {"value": TABLE}, [result]),
    "tree": ("give", {"value": TREE}, [result]),
    "image": ("draw", {}, [result]),
    "pdf": ("printed", {}, [result]),
}


@pytest.mark.parametrize("name", STATES)
def test_a_job(pages: Pages, browser: Browser, name: str) -> None:
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    page = context.new_page()
    task, arguments, steps = STATES[name]
    start(pages, page, task, **arguments)
    for step in steps:
        step(page)
    # What is not known to be so at the moment is shown paler, like what is disabled.
    expect(page.locator("offload-job")).not_to_have_attribute("data-stale", "")
    found = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=t.cast("t.Any", scheme))
        for width in (1000, 320):
            page.set_viewport_size({"width": width, "height": 800})
            found[scheme, width] = violations(page)
    context.close()
    assert not any(found.values()), found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_other_pages(pages: Pages, browser: Browser, scheme: t.Literal["light", "dark"]) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{pages.url}/mine")
    # The page around it is the developer's, and has no landmarks.
    page.evaluate("document.body.innerHTML = `<main>${document.body.innerHTML}</main>`")
    empty = violations(page)
    start(pages, page, "give", value=1)
    start(pages, page, "elsewhere")
    page.goto(f"{pages.url}/mine")
    page.evaluate("document.body.innerHTML = `<main>${document.body.innerHTML}</main>`")
    jobs = violations(page)
    page.goto(f"{pages.url}/jobs/unknown")
    missing = violations(page)
    page.goto(f"{pages.url}/embed/elsewhere")
    page.evaluate("document.body.innerHTML = `<main>${document.body.innerHTML}</main>`")
    embedded = violations(page)
    context.close()
    assert (empty, jobs, missing, embedded) == ([], [], [], [])


def test_what_is_wrong_is_found(page: Page) -> None:
    page.set_content("<html lang=en><title>x</title><main><h1>x</h1><img src=x></main></html>")
    assert [line.split(":")[1].strip() for line in violations(page)] == ["image-alt"]
