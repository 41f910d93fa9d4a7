"""The pages in another language: all of their texts, also what the script and a stream say."""

from __future__ import annotations

import typing as t
from pathlib import Path

import httpx
import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from flask_babel import Babel
from playwright.sync_api import Browser, expect

import flask_offload
from page_app import Pages
from web_browser import part

pytest_plugins = ["page_fixtures", "web_fixtures"]

PACKAGE = Path(flask_offload.__file__).parent
POT = PACKAGE / "translations" / "flask_offload.pot"
METHODS = [("**.py", "python"), ("**/templates/offload/**.html", "jinja2")]
KEYWORDS: dict[str, t.Any] = {
    "_": None, "gettext": None, "ngettext": (1, 2), "mark": None,
}  # fmt: skip


def test_the_file_for_translators_has_all_texts() -> None:
    found = {
        message
        for _, _, message, _, _ in extract_from_dir(PACKAGE / "_web", METHODS, keywords=KEYWORDS)
    }
    with POT.open("rb") as file:
        listed = {message.id for message in read_po(file) if message.id}
    assert listed == found, "run: make messages"


@pytest.fixture
def foreign(own_pages: Pages, tmp_path: Path) -> Pages:
    """The app in a made-up language in which every text of ours is marked."""
    with POT.open("rb") as file:
        catalog = read_po(file, locale="eo")
    for message in catalog:
        if isinstance(message.id, tuple):
            message.string = tuple(f"«{text}»" for text in message.id)
        elif message.id:
            message.string = f"«{message.id}»"
    folder = tmp_path / "translations" / "eo" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    with (folder / "flask_offload.mo").open("wb") as target:
        write_mo(target, catalog)
    own_pages.app.config["BABEL_TRANSLATION_DIRECTORIES"] = str(tmp_path / "translations")
    own_pages.app.config["BABEL_DEFAULT_LOCALE"] = "eo"
    # As an app does that is not running yet; this one has served nothing.
    Babel().init_app(own_pages.app)
    own_pages.worker("threads", 1)
    return own_pages


#: What is the app's, or a number, or the browser's.
OWN = {"Read the orders", "Reading", "All orders are read.", "Orders"}


def test_all_texts_are_translated(foreign: Pages, browser: Browser) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{foreign.url}/start/read?with=" + '{"steps": 30, "pause": 0.1}')
    expect(page.locator("html")).to_have_attribute("lang", "eo")
    expect(part(page, "word")).to_have_text("«Working»")
    # Said by the script, which counts by itself.
    expect(part(page, "meta")).to_contain_text("«about «5 s» left»")
    page.locator(".offload-log summary").click()
    page.locator("[data-part=details] summary").click()
    page.get_by_role("button", name="«Stop»").click()
    expect(page.get_by_role("dialog")).to_contain_text("«Stop this job?»")
    page.get_by_role("button", name="«Keep it»").click()
    expect(part(page, "word")).to_have_text("«Done»", timeout=15_000)
    words = page.evaluate("""() => {
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        const found = [];
        while (walker.nextNode()) {
            const parent = walker.currentNode.parentElement;
            if (parent.closest("time, code, ol, svg")) continue;
            const text = walker.currentNode.textContent.trim();
            if (/[A-Za-z]/.test(text)) found.push(text);
        }
        for (const node of document.querySelectorAll("[aria-label], [placeholder]")) {
            found.push(node.getAttribute("aria-label") ?? node.getAttribute("placeholder"));
        }
        return found;
    }""")
    english = [text for text in words if "«" not in text and text not in OWN]
    assert english == []
    context.close()


def test_errors_and_json_speak_it_too(foreign: Pages) -> None:
    headers = {"Accept": "application/json"}
    unknown = httpx.get(f"{foreign.url}/jobs/unknown", headers=headers, timeout=20)
    assert unknown.json()["error"].startswith("«This job cannot be found»")
    page = httpx.get(f"{foreign.url}/jobs/unknown", timeout=20).text
    assert "«This job cannot be found»" in page


def test_an_app_without_words_for_us_speaks_english(own_pages: Pages) -> None:
    own_pages.app.config["BABEL_DEFAULT_LOCALE"] = "de"
    Babel().init_app(own_pages.app)
    page = httpx.get(f"{own_pages.url}/jobs/unknown", timeout=20).text
    assert "This job cannot be found" in page
    assert '<html lang="en">' in page
