"""The fixtures of the tests of the web pages; a module asks for them by ``pytest_plugins``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from chromium import chromium
from servers import Valkey
from web_app import Site
from web_house import House


@pytest.fixture
def site(valkey: Valkey, tmp_path: Path) -> Iterator[Site]:
    site = Site(valkey.url, tmp_path)
    site.worker()
    with site.served():
        yield site


@pytest.fixture
def house(valkey: Valkey, tmp_path: Path) -> Iterator[House]:
    """A site with a login; what is done there is soon forgotten."""
    house = House(valkey.url, tmp_path, retention={"succeeded": 0.2, "failed": 9, "cancelled": 9})
    with house.served():
        house.people()
        yield house


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(timezone_id="Europe/Berlin", locale="en-GB")
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A tab; a script error, or something that our policy blocks, fails the test."""
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            "Content Security Policy" in message.text and complaints.append(message.text)
        ),
    )
    yield page
    assert complaints == []
