"""What a job that waits says, with a real worker, in a real browser."""

from __future__ import annotations

import re
import time
from itertools import groupby

from playwright.sync_api import Page, expect

from page_app import Pages
from waiting import wait_until
from web_browser import part, start

pytest_plugins = ["page_fixtures", "web_fixtures"]


def test_place_and_time_as_the_line_moves(pages: Pages, page: Page) -> None:
    for _ in range(3):
        done = pages.delay("bake", seconds=2)
    wait_until(lambda: done.record.state.finished, 40)
    for _ in range(4):
        pages.delay("bake", seconds=2)
    job_id = start(pages, page, "bake", seconds=2)
    text = part(page, "text")
    expect(text).to_contain_text("about 10 s")
    said = []
    while pages.state.control.get(job_id).state == "queued":
        words = text.inner_text()
        if not said or said[-1] != words:
            said.append(words)
        time.sleep(0.05)
    # The time may change while the place does not.
    places = [place for place, _ in groupby(words.partition(",")[0] for words in said)]
    # Some may pass between two looks; none comes back.
    order = ["4th in line", "3rd in line", "2nd in line", "Next in line"]
    assert [p for p in order if p in places] == [p for p in places if p in order]
    assert {"3rd in line", "2nd in line"} <= set(places), said
    expect(part(page, "result")).to_have_text("Baked.")
    assert page.evaluate("window.untouched")


def test_a_task_that_nobody_has_seen_has_no_time(own_pages: Pages, page: Page) -> None:
    own_pages.worker("threads", 1)
    own_pages.delay("hold", seconds=3)
    own_pages.delay("hold", seconds=0)
    start(own_pages, page, "hold", seconds=0)
    expect(part(page, "text")).to_have_text("2nd in line")


def test_paused_queue(own_pages: Pages, page: Page) -> None:
    own_pages.worker("threads", 1)
    own_pages.state.control.pause("celery")
    start(own_pages, page, "give", value="x")
    expect(part(page, "text")).to_contain_text("Jobs of this kind are paused for now")
    own_pages.state.control.resume("celery")
    expect(part(page, "result")).to_have_text("x")


def test_no_worker_then_one(own_pages: Pages, page: Page) -> None:
    start(own_pages, page, "give", value="x")
    expect(part(page, "text")).to_have_text("Waiting. No worker is running")
    own_pages.worker("threads", 1)
    expect(part(page, "result")).to_have_text("x")


def test_no_worker_for_its_queue(pages: Pages, page: Page) -> None:
    start(pages, page, "elsewhere")
    expect(part(page, "text")).to_have_text("Waiting. No worker is running for this kind of job")


def test_a_limit_of_the_rate(own_pages: Pages, page: Page) -> None:
    own_pages.worker("threads", 2)
    first = own_pages.delay("letter")
    wait_until(lambda: first.record.state.finished, 20)
    start(own_pages, page, "letter")
    expect(part(page, "text")).to_have_text(
        "Waiting: no more than 1 of these may start in a minute"
    )


def test_a_task_that_no_worker_knows(own_pages: Pages, page: Page) -> None:
    own_pages.worker("threads", 1)

    @own_pages.state.celery.task(name="page_app.newer")
    def newer() -> None: ...

    start(own_pages, page, "newer")
    expect(part(page, "text")).to_contain_text("This kind of job is new", timeout=15_000)
    own_pages.app.debug = True
    page.reload()
    expect(part(page, "text")).to_contain_text(
        "No running worker knows the task page_app.newer; restart the worker"
    )


def test_the_place_of_many_costs_the_server_little(own_pages: Pages) -> None:
    """What is the same for all is asked once; of each job only its place."""
    own_pages.worker("threads", 1)
    own_pages.delay("hold", seconds=20)
    jobs = [own_pages.delay("hold", seconds=0) for _ in range(50)]
    control, store = own_pages.state.control, own_pages.state.celery.store
    wait_until(lambda: jobs[-1].position == 50, message=lambda: f"{jobs[-1].position}")
    records = [store.get(job.id) for job in jobs]
    control.waiting(records[0])
    before = store.call("INFO", "commandstats")
    places = [control.waiting(record).place for record in records]
    after = store.call("INFO", "commandstats")
    assert places == list(range(1, 51))
    # Others use the server as well, so each count is an upper bound with some room.
    calls = {name: _calls(after, name) - _calls(before, name) for name in ("zrank", "hmget")}
    assert 50 <= calls["zrank"] <= 60
    assert calls["hmget"] <= 200, calls


def _calls(info: str, name: str) -> int:
    found = re.search(rf"cmdstat_{name}:calls=(\d+)", info)
    return int(found[1]) if found else 0
