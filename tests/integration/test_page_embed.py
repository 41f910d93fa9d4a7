"""A job in a page of the developer's, and templates of the developer's."""

from __future__ import annotations

import httpx
from jinja2 import ChoiceLoader, DictLoader
from playwright.sync_api import Browser, Page, expect

from page_app import Pages
from web_browser import part, start

pytest_plugins = ["page_fixtures", "web_fixtures"]

READ = 'with={"steps": 8, "pause": 0.1}'


def test_a_job_in_a_page(pages: Pages, page: Page) -> None:
    page.goto(f"{pages.url}/embed/read?{READ}")
    page.evaluate("window.untouched = true")
    expect(part(page, "word")).to_have_text("Working")
    expect(part(page, "result")).to_have_text("All orders are read.")
    assert page.evaluate("window.untouched")
    # Its title is one below the heading of the page, and the title of the page stays.
    expect(page.get_by_role("heading", level=2, name="Read the orders")).to_be_visible()
    assert page.title() == "A page of the app's own"
    # The colour of the app.
    assert (
        page.locator("offload-job")
        .evaluate("job => getComputedStyle(job).getPropertyValue('--accent')")
        .strip()
        == "#7b1fa2"
    )
    assert (
        page.locator("offload-job")
        .evaluate("job => getComputedStyle(job).fontFamily")
        .startswith("Georgia")
    )


def test_an_element_that_is_written_by_hand(pages: Pages, page: Page) -> None:
    done: list[str] = []
    page.expose_function("done", lambda state: done.append(state))
    page.add_init_script("addEventListener('offload-done', event => done(event.detail.state))")
    page.goto(f"{pages.url}/embed-by-hand/read?{READ}")
    expect(part(page, "result")).to_have_text("All orders are read.")
    expect(page.get_by_role("heading", level=2, name="Read the orders")).to_be_visible()
    expect(part(page, "log").locator("summary")).to_contain_text("8 lines")
    assert done == ["succeeded"]


def test_the_first_job_of_a_new_visitor(pages: Pages, browser: Browser) -> None:
    """Its page is asked with the key, as the cookie of another answer may have come later."""
    for way in ("embed", "embed-by-hand"):
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{pages.url}/{way}/give?with=" + '{"value": "x"}')
        context.clear_cookies()
        expect(part(page, "result")).to_have_text("x")
        context.close()


def test_nothing_of_another_persons_job(pages: Pages, page: Page) -> None:
    job_id = start(pages, page, "give", value="private")
    stranger = httpx.get(f"{pages.url}/show/{job_id}", timeout=20)
    unknown = httpx.get(f"{pages.url}/show/unknown", timeout=20)
    assert stranger.status_code == 200
    assert stranger.text == unknown.text
    assert "offload-job" not in stranger.text
    page.goto(f"{pages.url}/show/{job_id}")
    expect(part(page, "result")).to_have_text("private")


def test_every_part_can_be_overridden(own_pages: Pages, page: Page) -> None:
    own_pages.worker("threads", 1)
    blocks = {
        "job_header": '<p id="header">{{ job.title }}</p><p class="offload-state">'
        '<span data-part="word">{{ job.view.word }}</span></p>',
        "job_bar": '<div id="bar">{{ super() }}</div>',
        "job_result": '<p data-part="result" data-swap><b id="result">{{ record.result }}</b></p>',
        "job_text": '<div id="text">{{ super() }}</div>',
        "job_actions": '<div id="actions">{{ super() }}</div>',
        "job_files": '<div id="files">{{ super() }}</div>',
        "job_log": '<div id="log">{{ super() }}</div>',
        "job_error": '<div id="error">{{ super() }}</div>',
        "job_details": '<div id="details">{{ super() }}</div>',
        "title": "Ours: {{ super() }}",
    }
    template = "{% extends 'offload/job_base.html' %}" + "".join(
        f"{{% block {name} %}}{text}{{% endblock %}}" for name, text in blocks.items()
    )
    loader = own_pages.app.jinja_env.loader
    ours = DictLoader({"offload/job.html": template})
    own_pages.app.jinja_env.loader = ChoiceLoader([ours, loader])  # type: ignore[list-item]
    start(own_pages, page, "give", value="theirs")
    for name in ("header", "bar", "text", "actions", "files", "log", "error", "details"):
        expect(page.locator(f"#{name}")).to_have_count(1)
    # What comes live is the developer's, too.
    expect(page.locator("#result")).to_have_text("theirs")
    expect(part(page, "word")).to_have_text("Done")
    assert page.evaluate("window.untouched")
    page.goto(f"{own_pages.url}/embed/give?with=" + '{"value": "embedded"}')
    expect(page.locator("#result")).to_have_text("embedded")


def test_a_server_that_is_away_costs_the_job_not_the_page(own_pages: Pages) -> None:
    own_pages.state.celery.store.connections.close()
    own_pages.app.extensions["offload"].celery.store.connections = _Away()
    answer = httpx.get(f"{own_pages.url}/show/some-job", timeout=20)
    assert answer.status_code == 200
    assert "This cannot be shown right now" in answer.text


class _Away:
    def take(self, deadline: object) -> object:
        from flask_offload._store import StoreUnavailable

        raise StoreUnavailable("The server is away.", sent=False)

    def close(self) -> None: ...
