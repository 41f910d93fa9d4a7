"""What tests in a real browser share."""

from __future__ import annotations

import json
import typing as t
from urllib.parse import urlencode

from playwright.sync_api import Page, expect

from page_app import Pages
from web_app import Site


def open_job(site: Site, page: Page) -> str:
    """Start a job as a browser does; the id."""
    page.goto(f"{site.url}/go")
    expect(page).not_to_have_url("key=")
    # Lost at a reload, so that a test sees whether there was one.
    page.evaluate("window.untouched = true")
    return page.url.rpartition("/")[2]


def untouched(page: Page) -> bool:
    return bool(page.evaluate("window.untouched === true"))


def part(page: Page, name: str) -> t.Any:
    return page.locator(f"[data-part={name}]")


def start(pages: Pages, page: Page, name: str, **arguments: t.Any) -> str:
    """Start a job and be on its page; the id."""
    query = urlencode({"with": json.dumps(arguments)})
    page.goto(f"{pages.url}/start/{name}?{query}")
    page.evaluate("window.untouched = true")
    return page.url.rpartition("/")[2].partition("?")[0]
