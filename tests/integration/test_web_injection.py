"""What a task or a client says stays a text, on every page, wherever it is said."""

from __future__ import annotations

import typing as t
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
from flask import request
from playwright.sync_api import BrowserContext, Page, expect

from corpus import CORPUS, LINKS
from event_stream import stream
from flask_offload import EnqueueError
from web_app import Site, start
from web_browser import open_job, part

if t.TYPE_CHECKING:
    from servers import Valkey

pytest_plugins = ["web_fixtures"]

PLAIN = "plain"


class Skeleton(HTMLParser):
    """What of a page is no text: its elements, and the names of their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, ...]] = []
        self.text = ""
        self.links: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = sorted(name for name, _ in attrs)
        assert not any(name.startswith("on") or name in ("style", "srcdoc") for name in names), tag
        # A class may go by the length of a text.
        self.elements.append((tag, *(name for name in names if name != "class")))
        self._open.append(tag)
        for name, value in attrs:
            if name in ("href", "src", "action", "formaction", "data", "poster", "content"):
                self.links.append(value or "")
            self.text += f" {value}"
        if tag == "script":
            self.scripts.append(dict(attrs).get("src") or "")

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}",))
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            assert not data.strip(), data
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data}")


def same_but_for_the_text(html: str, plain: str) -> None:
    """Two pages have the same elements and attributes, and lead nowhere but here."""
    page = Skeleton(html)
    assert page.elements == Skeleton(plain).elements
    assert all(source.startswith("/jobs/static/") for source in page.scripts)
    for link in page.links:
        assert not link.lstrip().lower().startswith(("javascript:", "data:t", "//")), link
        assert "evil.example" not in link.partition("?")[0].partition("%")[0]


def results(text: str) -> list[t.Any]:
    """A result of each kind that there is."""
    file = {"name": text, "size": 1, "url": text, "content_type": "text/html"}
    return [
        text,
        [text, text],
        {text: text, "html": text, "url": text},
        [{"name": text, text: text}, {"name": text, text: text}],
        [[text, "x"], [text, "y"]],
        {"deep": [{text: [text, None, {"x": text}]}]},
        file,
    ]


def job_with(site: Site, text: str, owners: tuple[str, ...], end: str, result: t.Any = None) -> str:
    """A job that says a text in all that it can say."""
    job_id = site.enqueue(owners=owners, title=text, request_id=text, locale="en")
    site.run(job_id, title=text)
    site.say(job_id, text, f"second {text}", done=1, total=3, message=text)
    # Past safe_name(), as a worker that somebody has taken over would do it.
    site.store.attach(job_id, {"name": text, "size": 1, "content_type": text})
    if end == "succeeded":
        site.finish(job_id, result)
    elif end == "failed":
        site.finish(job_id, state="failed", error=text, user_error=text, traceback=text)
    elif end == "cancelled":
        site.control.cancel(job_id, by=text)
        site.finish(job_id, state="cancelled")
    return job_id


@pytest.fixture
def busy(valkey: Valkey, tmp_path: Path) -> t.Iterator[Site]:
    """A site that shows its errors to the developer."""
    site = Site(valkey.url, tmp_path)
    site.debug = site.app.debug = True

    def refuse() -> t.Any:
        raise EnqueueError(request.args["text"])

    site.app.add_url_rule("/refuse", view_func=refuse)
    site.worker()
    with site.served():
        yield site


def pages_of(site: Site, text: str) -> dict[str, str]:
    """All pages on which a text appears."""
    # Some hundred, which need no sockets.
    browser = site.app.test_client()
    owners = site.store.get(browser.post("/start").get_json()["id"]).owners
    headers = {
        name: text.encode("ascii", "replace").translate(None, b"\r\n\0\x08\x1b").decode()
        for name in ("X-Request-ID", "X-Forwarded-Host", "Referer", "User-Agent", "Last-Event-ID")
    }

    def get(path: str, status: int = 200) -> str:
        response = browser.get(path, headers={"Accept": "text/html", **headers})
        assert response.status_code == status
        return response.text

    jobs = {end: job_with(site, text, owners, end) for end in ("running", "failed", "cancelled")}
    for number, result in enumerate(results(text)):
        jobs[f"result {number}"] = job_with(site, text, owners, "succeeded", result)
    # A slash is none of an id or a name.
    place = quote(text.replace("/", "_"), safe="")
    return {
        **{kind: get(f"/jobs/{job_id}") for kind, job_id in jobs.items()},
        "list": get("/mine"),
        "error": get(f"/refuse?text={quote(text)}", 503),
        "unknown job": get(f"/jobs/{place}?key={quote(text)}", 404),
        "unknown file": get(f"/jobs/{jobs['running']}/files/{place}", 404),
    }


def visible(text: str) -> str:
    """As much of a text as a parser gives back as it was."""
    return max(text.replace("\r", "\n").replace("\0", "\n").split("\n"), key=len)


def test_texts_stay_texts(busy: Site) -> None:
    plain = pages_of(busy, PLAIN)
    for text in CORPUS:
        for kind, html in pages_of(busy, text).items():
            same_but_for_the_text(html, plain[kind])
            if "unknown" not in kind:
                assert visible(text) in Skeleton(html).text, (kind, text)


def test_links_lead_where_they_say_and_carry_nothing_else(busy: Site) -> None:
    browser = busy.browser()
    owners = busy.store.get(start(busy, browser)).owners
    pages = []
    for link in ["https://example.org/", *LINKS]:
        job_id = busy.enqueue(owners=owners)
        busy.run(job_id)
        busy.finish(job_id, link)
        pages.append(browser.get(f"/jobs/{job_id}").text)
        assert link in Skeleton(pages[-1]).links
        same_but_for_the_text(pages[-1], pages[0])


def test_answers_that_are_no_pages_are_not_taken_for_any(busy: Site) -> None:
    visitor = busy.visitor()
    owners = busy.store.get(start(busy, visitor)).owners
    for text in CORPUS:
        job_id = job_with(busy, text, owners, "failed")
        response = visitor.get(f"/jobs/{job_id}?logs_after=0")
        assert response.headers["Content-Type"] == "application/json"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        job = response.json()
        assert (job["title"], job["error"]) == (text, text)
        # No text ends an event of a stream, or begins another.
        with stream(visitor, f"/jobs/{job_id}/events") as events:
            names = [name for name, _, _ in events]
        assert names == [*dict.fromkeys(names)]
        assert names[0] == "job"
        assert names[-1] == "end"


FOREIGN = "img:not([src^='/jobs/']), iframe:not([src^='/jobs/']), base, form[action*=evil]"
WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation",
  event => violations.push(`${event.violatedDirective} ${event.blockedURI}`));
for (const name of ["alert", "confirm", "prompt", "print"])
  window[name] = () => { window.pwned = 1; };
"""


def test_nothing_runs_in_a_browser(site: Site, page: Page, context: BrowserContext) -> None:
    context.add_init_script(WATCH)
    dialogs: list[str] = []
    elsewhere: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda r: r.url.startswith(site.url) or elsewhere.append(r.url))

    def calm() -> None:
        assert page.evaluate("[window.pwned, ...violations]") == [None]
        assert page.url.startswith(site.url)
        assert (
            page.locator("img, iframe:not([src^='/jobs/']), base, form[action*=evil]").count() == 0
        )

    everything = "\n".join(text for text in CORPUS if "\0" not in text)
    owners = site.store.get(open_job(site, page)).owners
    for end, result in [
        *[("succeeded", result) for result in results(everything)],
        *[("succeeded", link) for link in LINKS],
        ("succeeded", CORPUS),
        ("succeeded", [{"text": text, text: 1} for text in CORPUS]),
        ("failed", None),
    ]:
        # Told by the stream while the page is open ...
        job_id = site.enqueue(owners=owners, title=everything)
        page.goto(f"{site.url}/jobs/{job_id}")
        expect(part(page, "word")).to_have_text("Waiting")
        site.run(job_id, title=everything)
        site.say(job_id, *CORPUS, done=1, total=3, message=everything)
        site.store.attach(job_id, {"name": everything, "size": 1, "content_type": everything})
        expect(part(page, "lines")).to_have_text(f"{len(CORPUS)} lines")
        calm()
        fields = {"error": everything, "user_error": everything} if end == "failed" else {}
        site.finish(job_id, result, state=end, **fields)
        expect(part(page, "word")).to_have_text("Done" if end == "succeeded" else "Failed")
        for summary in page.locator("offload-job summary").all():
            if summary.is_visible():
                summary.click()
        page.mouse.move(300, 300)
        calm()
        # ... and by the page itself.
        page.reload()
        expect(part(page, "title")).to_be_visible()
        calm()
    for address in ("/mine", f"/jobs/{quote(CORPUS[0], safe='')}"):
        page.goto(f"{site.url}{address}")
        expect(page.locator("body")).to_be_visible()
        calm()
    assert dialogs == elsewhere == []
