"""The page of a job comes back by itself from what networks, servers and laptops do."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Iterable

import pytest
from playwright.sync_api import Page, expect

from page_app import Pages
from waiting import wait_until
from web_browser import part, start

pytest_plugins = ["page_fixtures", "web_fixtures"]


class Between:
    """What stands between the browser and the app, and may misbehave.

    :ivar down: Answers 502 to all.
    :ivar buffers: Holds a stream back until it ends, as some proxies do.
    :ivar mute: Lets nothing of a stream through any more, without a word.
    """

    def __init__(self, app: t.Any) -> None:
        self.app = app
        self.down = self.buffers = self.mute = False
        self.asked: list[tuple[str, str]] = []

    def __call__(self, environ: dict[str, t.Any], start_response: t.Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        self.asked.append((path, environ["QUERY_STRING"]))
        if self.down:
            start_response("502 Bad Gateway", [("Content-Type", "text/html")])
            return [b"<h1>502</h1>"]
        if not path.endswith("/events"):
            return t.cast("Iterable[bytes]", self.app(environ, start_response))
        if self.buffers:
            time.sleep(30)
        return self._stream(environ, start_response)

    def _stream(self, environ: dict[str, t.Any], start_response: t.Any) -> Iterable[bytes]:
        chunks = self.app(environ, start_response)
        try:
            for chunk in chunks:
                if self.down:
                    return
                if not self.mute:
                    yield chunk
        finally:
            chunks.close()

    def streams(self) -> int:
        return sum(path.endswith("/events") for path, _ in self.asked)


@pytest.fixture
def between(own_pages: Pages) -> t.Iterator[Between]:
    middle = Between(own_pages.app.wsgi_app)
    own_pages.worker("threads", 2)
    with own_pages.served(middle):
        yield middle


def stale(page: Page) -> bool:
    return bool(page.locator("offload-job").evaluate("job => job.hasAttribute('data-stale')"))


def test_a_proxy_that_buffers(own_pages: Pages, between: Between, page: Page) -> None:
    between.buffers = True
    start(own_pages, page, "read", steps=40, pause=0.2)
    expect(part(page, "meta")).to_contain_text("of 40", timeout=9_000)
    expect(part(page, "lost")).to_be_hidden()
    # From the end of its patience to the first answer, nobody knows whether it still holds.
    expect(page.locator("offload-job:not([data-stale])")).to_be_visible()
    expect(part(page, "result")).to_have_text("All orders are read.", timeout=20_000)
    # It did not begin one stream after the other that cannot get through.
    assert between.streams() == 1
    assert page.evaluate("window.untouched")


def test_502_for_a_while(own_pages: Pages, between: Between, page: Page) -> None:
    start(own_pages, page, "read", steps=150, pause=0.1)
    expect(part(page, "meta")).to_contain_text("of 150")
    between.down = True
    expect(part(page, "lost")).to_be_visible(timeout=15_000)
    assert stale(page)
    # What is stale does not go on counting.
    meta = part(page, "meta").inner_text()
    page.wait_for_timeout(2_500)
    assert part(page, "meta").inner_text() == meta
    between.asked.clear()
    page.wait_for_timeout(8_000)
    assert len(between.asked) <= 4, "it asks oftener and oftener, or as often as before"
    between.down = False
    expect(part(page, "lost")).to_be_hidden(timeout=35_000)
    expect(part(page, "result")).to_have_text("All orders are read.", timeout=20_000)
    # No line is missing, and none is there twice.
    numbers = part(page, "log").locator("li span").all_inner_texts()
    part(page, "log").locator("summary").click()
    numbers = part(page, "log").locator("li span").all_inner_texts()
    assert numbers == [f"order {number} of 150" for number in range(1, 151)]
    assert page.evaluate("window.untouched")


def test_asleep_for_an_hour(own_pages: Pages, between: Between, page: Page) -> None:
    page.clock.install()
    start(own_pages, page, "read", steps=30, pause=0.1)
    expect(part(page, "meta")).to_contain_text("of 30")
    between.mute = True
    own = own_pages.state.control.newest(limit=1)[0]
    wait_until(lambda: own_pages.state.control.get(own.id).state.finished, 20)
    assert part(page, "word").inner_text() == "Working"
    between.mute = False
    between.asked.clear()
    page.clock.fast_forward("01:00:00")
    expect(part(page, "result")).to_have_text("All orders are read.")
    (query,) = [query for path, query in between.asked if path.endswith("/events")]
    # From where it was, not from the beginning.
    assert int(query.rpartition("%7E")[2]) > 0
    part(page, "log").locator("summary").click()
    expect(part(page, "log").locator("li")).to_have_count(30)
    assert page.evaluate("window.untouched")


def test_a_stream_that_dies_without_a_word(own_pages: Pages, between: Between, page: Page) -> None:
    page.clock.install()
    start(own_pages, page, "hold", seconds=4)
    expect(part(page, "word")).to_have_text("Working")
    between.mute = True
    own = own_pages.state.control.newest(limit=1)[0]
    wait_until(lambda: own_pages.state.control.get(own.id).state.finished, 20)
    between.mute = False
    page.clock.run_for(30_000)
    expect(part(page, "result")).to_have_text("The bank has answered.")


def test_a_hidden_tab_still_carries_the_progress_in_its_title(
    own_pages: Pages, between: Between, page: Page
) -> None:
    page.clock.install()
    start(own_pages, page, "read", steps=20, pause=0.1)
    expect(part(page, "word")).to_have_text("Working")
    page.evaluate("""() => {
        Object.defineProperty(document, "hidden", {value: true, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    own = own_pages.state.control.newest(limit=1)[0]
    wait_until(lambda: own_pages.state.control.get(own.id).state.finished, 20)
    between.asked.clear()
    page.clock.run_for(20_000)
    expect(page).to_have_title("Done · Read the orders")
    assert between.streams() == 0


def test_the_worker_is_killed(own_pages: Pages, page: Page) -> None:
    worker = own_pages.worker("threads", 1)
    start(own_pages, page, "hold", seconds=3)
    expect(part(page, "word")).to_have_text("Working")
    worker.kill()
    expect(part(page, "text")).to_contain_text("its worker stopped answering", timeout=40_000)
    own_pages.worker("threads", 1)
    expect(part(page, "result")).to_have_text("The bank has answered.", timeout=40_000)
    expect(part(page, "notes")).to_contain_text("Started again because its worker stopped")
    assert page.evaluate("window.untouched")
