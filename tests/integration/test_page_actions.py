"""What a reader can do about a job, in a real browser, with a real worker."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import APIResponse, BrowserContext, Page, Route, expect

from flask_offload import JobState
from page_app import Pages
from waiting import wait_until
from web_browser import part, start

pytest_plugins = ["page_fixtures", "web_fixtures"]


# -- run again


def test_run_again_with_the_same_input(pages: Pages, page: Page) -> None:
    first = start(pages, page, "give", value="the same")
    button = page.get_by_role("button", name="Run again")
    expect(button).to_be_visible()
    assert page.evaluate("window.untouched")
    button.click()
    page.wait_for_url(lambda url: "/jobs/" in url and first not in url)
    expect(part(page, "result")).to_have_text("the same")
    second = page.url.rpartition("/")[2]
    old, new = (pages.state.control.get(each) for each in (first, second))
    assert (old.owners, old.args, old.kwargs) == (new.owners, new.args, new.kwargs)


def test_two_presses_start_one_job(pages: Pages, page: Page) -> None:
    start(pages, page, "give", value="once")
    form = part(page, "again").locator("form")
    expect(form).to_be_visible()
    sent = """async form => {
        const options = {method: "POST", body: new URLSearchParams(new FormData(form))};
        const both = [fetch(form.action, options), fetch(form.action, options)];
        return (await Promise.all(both)).map(answer => answer.url);
    }"""
    one, two = form.evaluate(sent)
    assert one == two
    assert "/jobs/" in one


def test_only_what_the_developer_allows_and_only_once_it_is_over(pages: Pages, page: Page) -> None:
    job_id = start(pages, page, "bake", seconds=0)
    expect(part(page, "result")).to_have_text("Baked.")
    expect(page.get_by_role("button", name="Run again")).to_have_count(0)
    answer = page.request.post(
        f"{pages.url}/jobs/{job_id}/retry", headers={"Sec-Fetch-Site": "same-origin"}
    )
    assert answer.status == 409
    assert "cannot be run again" in answer.text()
    waiting = start(pages, page, "elsewhere")
    url = f"{pages.url}/jobs/{waiting}/retry"
    assert page.request.post(url, headers={"Sec-Fetch-Site": "same-origin"}).status == 409


def test_nobody_else_runs_it_again(pages: Pages, page: Page) -> None:
    job_id = start(pages, page, "give", value="mine")
    expect(part(page, "result")).to_have_text("mine")
    url = f"{pages.url}/jobs/{job_id}/retry"
    unknown = httpx.post(f"{pages.url}/jobs/unknown/retry", timeout=20)
    stranger = httpx.post(url, headers={"Sec-Fetch-Site": "same-origin"}, timeout=20)
    assert stranger.status_code == unknown.status_code == 404
    assert stranger.text == unknown.text
    # A page of somebody else's in the same browser.
    assert page.request.post(url, headers={"Sec-Fetch-Site": "cross-site"}).status == 403
    # And not by reading.
    before = len(pages.state.control.newest(limit=1000))
    assert page.request.get(url).status == 405
    assert len(pages.state.control.newest(limit=1000)) == before


def test_a_program_runs_it_again(pages: Pages) -> None:
    with httpx.Client(base_url=pages.url, timeout=20) as client:
        there = client.get('/start/give?with={"value": 1}').headers["Location"]
        with httpx.Client(base_url=pages.url, timeout=20) as other:
            headers = {"Accept": "application/json"}

            def over() -> dict[str, str] | None:
                job = other.get(there, headers=headers).json()
                return job if job["state"] == "succeeded" else None

            job = wait_until(over, 20)
            answer = other.post(job["retry_url"], headers=headers)
            assert answer.status_code == 201
            # The new job opens by the key that comes along.
            assert other.get(answer.headers["Location"], headers=headers).status_code == 200
            assert answer.json()["id"] != job["id"]


# -- stop


def test_what_will_happen_is_said_before(pages: Pages, page: Page) -> None:
    start(pages, page, "elsewhere")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("dialog")).to_contain_text("It has not started, and will not.")
    page.get_by_role("button", name="Keep it").click()
    job_id = start(pages, page, "hold", seconds=30)
    expect(part(page, "word")).to_have_text("Working")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("dialog")).to_contain_text("It ends within a few seconds.")
    page.get_by_role("button", name="Stop it").click()
    expect(part(page, "text")).to_contain_text("Stopped by you at")
    assert page.evaluate("window.untouched")
    assert pages.state.control.get(job_id).state is JobState.CANCELLED


def test_a_process_ends_at_once(own_pages: Pages, page: Page) -> None:
    own_pages.worker("prefork", 1)
    start(own_pages, page, "hold", seconds=30)
    expect(part(page, "word")).to_have_text("Working")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("dialog")).to_contain_text("It ends at once.")
    page.get_by_role("button", name="Stop it").click()
    expect(part(page, "text")).to_contain_text("Stopped by you at")


def test_an_answer_that_is_overtaken(pages: Pages, page: Page) -> None:
    start(pages, page, "hold", seconds=30)
    expect(part(page, "word")).to_have_text("Working")
    held: list[tuple[Route, APIResponse]] = []
    page.route("**/cancel", lambda route: held.append((route, route.fetch())))
    page.evaluate(
        """() => {
            const live = document.querySelector("offload-job");
            window.sent = live.send(live.part("stop"));
        }"""
    )
    # The stream tells the end before the answer comes, which says that it is about to stop.
    expect(part(page, "text")).to_contain_text("Stopped by you at")
    ((route, answer),) = held
    assert answer.json()["state"] == "running"
    route.fulfill(response=answer)
    page.evaluate("() => window.sent")
    expect(part(page, "word")).to_have_text("Stopped")
    expect(part(page, "text")).to_contain_text("Stopped by you at")


def test_stopped_by_an_operator(pages: Pages, page: Page) -> None:
    job_id = start(pages, page, "elsewhere")
    pages.state.control.cancel(job_id, by="ada")
    expect(part(page, "text")).to_contain_text("Stopped by an operator at")
    expect(page.get_by_role("button", name="Notify me")).to_be_hidden()


# -- be told, and tell


NOTED = """
    window.told = [];
    window.Notification = class {
        static permission = "default";
        static async requestPermission() { return window.answer ?? "granted"; }
        constructor(title, options) { window.told.push([title, options.body]); }
        close() {}
    };
"""


def test_a_notification_when_it_is_over(pages: Pages, page: Page) -> None:
    page.add_init_script(NOTED)
    start(pages, page, "hold", seconds=5)
    button = page.get_by_role("button", name="Notify me")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(part(page, "said")).to_have_text("You will be notified. Keep this tab open.")
    expect(part(page, "word")).to_have_text("Done", timeout=20_000)
    assert page.evaluate("window.told") == [["Done · Wait for the bank", ""]]
    expect(button).to_be_hidden()


def test_no_notification_where_the_reader_denies_it(pages: Pages, page: Page) -> None:
    page.add_init_script(NOTED + "window.answer = 'denied';")
    start(pages, page, "elsewhere")
    page.get_by_role("button", name="Notify me").click()
    expect(part(page, "said")).to_have_text("This browser does not allow notifications here.")
    assert page.evaluate("window.told") == []


def test_the_link_is_copied_without_a_key(
    pages: Pages, page: Page, context: BrowserContext
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    job_id = start(pages, page, "elsewhere")
    page.get_by_role("button", name="Copy link").click()
    expect(part(page, "said")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"{pages.url}/jobs/{job_id}"


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_activity_moves_only_for_who_wants_that(pages: Pages, page: Page, motion: str) -> None:
    page.emulate_media(reduced_motion=motion)  # type: ignore[arg-type]
    start(pages, page, "hold", seconds=2)
    bar = part(page, "bar")
    expect(bar).to_be_visible()
    name = bar.evaluate("bar => getComputedStyle(bar).animationName")
    assert name == ("none" if motion == "reduce" else "offload-activity")


def test_all_is_reached_by_keyboard(pages: Pages, page: Page) -> None:
    start(pages, page, "elsewhere")
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim().split('\\n')[0]"))
    assert [words.split()[0] for words in reached[:5]] == [
        "Stop",
        "Notify",
        "Copy",
        "Log",
        "Details",
    ]
