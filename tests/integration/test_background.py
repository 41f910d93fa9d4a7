"""Background views: a request becomes a job, and its response is kept until it is fetched."""

from __future__ import annotations

import pytest

from background import Views, job_id
from waiting import wait_until

pytest_plugins = ["background_fixtures"]


def test_a_browser_is_led_to_the_page_and_on_to_the_response(views: Views) -> None:
    visitor = views.visitor()
    answer = visitor.ask("/outer")
    assert answer.status_code == 303
    assert answer.headers["Cache-Control"] == "no-store"
    # A first request has no cookie yet, so its answer carries the key of the job.
    assert "?key=" in answer.location
    page = visitor.ask(answer.location)
    assert page.status_code == 303
    page_url = page.location
    assert page_url == f"/jobs/{job_id(answer.location)}"
    job = visitor.wait(page_url)
    assert job["state"] == "succeeded"
    assert job["title"] == "Outer"
    assert job["result"] is None
    moved = visitor.ask(page_url)
    assert (moved.status_code, moved.location) == (303, f"{page_url}/response")
    assert job["response_url"] == moved.location
    response = visitor.ask(moved.location)
    assert (response.status_code, response.text) == (200, "outer")
    # It is kept, and the page of the job is still there for who wants it.
    assert visitor.ask(moved.location).text == "outer"
    stayed = visitor.ask(f"{page_url}?stay=1")
    assert stayed.status_code == 200
    assert f'href="{page_url}/response"' in stayed.text


def test_the_page_reloads_itself_without_javascript(views: Views) -> None:
    visitor = views.visitor()
    page = visitor.start("/slow?gate=reload")
    waiting = visitor.ask(page)
    assert waiting.status_code == 200
    assert 'http-equiv="refresh"' in waiting.text
    # Not done yet: the address of the response leads back.
    early = visitor.ask(f"{page}/response")
    assert (early.status_code, early.location) == (303, page)
    views.open_gate("reload")
    visitor.wait(page)
    assert visitor.ask(page).location == f"{page}/response"


def test_an_api_client_polls(views: Views) -> None:
    program = views.visitor(Accept="application/json")
    answer = program.ask("/slow?gate=poll")
    assert answer.status_code == 202
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.get_json()["state"] == "queued"
    assert answer.get_json()["url"] == answer.location
    location = answer.location
    # Without any cookie: the key in the address will do.
    fresh = views.visitor(Accept="application/json")
    state = fresh.ask(location)
    assert state.status_code == 200
    assert state.get_json()["state"] in ("queued", "running")
    assert int(state.headers["Retry-After"]) > 0
    assert state.get_json()["response_url"] is None
    views.open_gate("poll")
    wait_until(lambda: fresh.ask(location).status_code == 303, 20)
    done = views.visitor(Accept="application/json").ask(location)
    assert done.location.startswith(f"{location.partition('?')[0]}/response?key=")
    assert views.visitor(Accept="application/json").ask(done.location).text == "slow is done"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Accept": "application/json"}, 202),
        ({"Accept": "application/json, text/html;q=0.5"}, 202),
        ({"Accept": "text/html, application/json;q=0.5"}, 303),
        ({"Accept": "*/*"}, 303),
        ({"Accept": "*/*", "Prefer": "respond-async"}, 202),
        ({"Prefer": "handling=lenient, Respond-Async"}, 202),
        ({"Prefer": "return=minimal"}, 303),
    ],
)
def test_who_gets_which_answer(views: Views, headers: dict[str, str], status: int) -> None:
    answer = views.visitor().ask("/twice", "POST", headers=headers)
    assert answer.status_code == status
    applied = answer.headers.get("Preference-Applied")
    assert applied == ("respond-async" if "sync" in headers.get("Prefer", "") else None)
    assert {"Accept", "Prefer", "Cookie"} <= set(answer.vary)


def test_prefer_wait_answers_directly(views: Views) -> None:
    program = views.visitor(Accept="application/json")
    answer = program.ask("/respond/teapot", headers={"Prefer": "respond-async, wait=9"})
    assert (answer.status_code, answer.text) == (418, "short and stout")
    assert answer.headers["Preference-Applied"] == "wait=9"
    assert answer.headers["X-Own"] == "yes"
    # Each hook ran once for this answer, those of the blueprint too.
    assert sorted(answer.headers.getlist("X-After")) == ["app", "blueprint"]


def test_prefer_wait_is_bounded(views: Views) -> None:
    app = views.make(OFFLOAD_MAX_WAIT=0.3)
    program = views.visitor(app, Accept="application/json")
    answer = program.ask("/slow?gate=wait", headers={"Prefer": "wait=30"})
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "wait=0.3"
    views.open_gate("wait")
    never = views.visitor(views.make(OFFLOAD_MAX_WAIT=0), Prefer="wait=30").ask("/outer")
    assert never.status_code == 202
    assert "Preference-Applied" not in never.headers


@pytest.mark.parametrize(
    "header",
    [{"Sec-Purpose": "prefetch"}, {"Sec-Purpose": "prefetch;prerender"}, {"Purpose": "prefetch"},
     {"X-Moz": "prefetch"}, {"X-Purpose": "preview"}],
)  # fmt: skip
def test_who_only_looks_starts_nothing(views: Views, header: dict[str, str]) -> None:
    before = len(views.state.control.newest(limit=1000))
    visitor = views.visitor()
    answers = [visitor.ask("/outer", headers=header), visitor.ask("/outer", "HEAD")]
    assert [answer.status_code for answer in answers] == [204, 204]
    assert {answer.headers["Cache-Control"] for answer in answers} == {"no-store"}
    assert len(views.state.control.newest(limit=1000)) == before


def test_get_starts_one_job_at_a_time(views: Views) -> None:
    visitor = views.visitor()
    visitor.ask("/token")
    visitor.start("/outer")  # from here on the browser has its cookie
    pages = {visitor.start("/slow?gate=one") for _ in range(3)}
    assert len(pages) == 1
    other_url = visitor.start("/slow?gate=one&more=1")
    somebody = views.visitor()
    somebody.start("/outer")
    assert {other_url, somebody.start("/slow?gate=one")}.isdisjoint(pages)
    views.open_gate("one")
    (page,) = pages
    visitor.wait(page)
    assert visitor.start("/slow?gate=one") != page


def test_a_double_click_gives_one_job(views: Views) -> None:
    visitor = views.visitor()
    visitor.start("/outer")

    def send(text: str, upload: bytes = b"") -> str:
        import io

        data = {"gate": "double", "text": text, "csrf_token": visitor.ask("/token").text}
        files = {"file": (io.BytesIO(upload), "a.txt")} if upload else {}
        return visitor.start("/slow", "POST", data={**data, **files})

    assert send("a") == send("a")
    assert send("b") != send("a")
    assert send("a", b"one") == send("a", b"one")
    assert send("a", b"one") != send("a", b"two")
    # What was sent along with the second click is not kept.
    folders = list((views.folder / "files").iterdir())
    assert len(folders) == 2
    views.open_gate("double")
    # Where it is not asked for, two requests are two jobs.
    assert visitor.start("/twice", "POST") != visitor.start("/twice", "POST")


def test_a_first_double_click_gives_one_job(views: Views) -> None:
    """Neither request has our cookie yet; they share the session, as of the form's page."""
    visitor = views.visitor()
    data = {"gate": "first", "csrf_token": visitor.ask("/token").text}
    cookie = visitor.client.get_cookie("session")
    assert cookie
    # Both are sent before the answer to the first one is there.
    sent = {"Cookie": f"session={cookie.value}"}
    clicks = [views.visitor(**sent) for _ in range(2)]
    for click in clicks:
        click.client = views.app.test_client(use_cookies=False)
    links = [click.ask("/slow", "POST", data=data).location for click in clicks]
    assert links[0] == links[1]
    # Its key opens the page, whichever of the two cookies the browser keeps.
    assert "?key=" in links[1]
    assert [click.ask(links[1]).status_code for click in clicks] == [303, 303]
    # Without a session nothing tells two requests from those of two people.
    strangers = {views.visitor().ask("/slow?gate=first").location for _ in range(2)}
    assert len(strangers) == 2
    views.open_gate("first")


def test_another_owner_gets_what_nobody_gets(views: Views) -> None:
    owner = views.visitor()
    page = owner.start("/outer")
    owner.wait(page)
    stranger = views.visitor()
    for accept in ("text/html", "application/json"):
        headers = {"Accept": accept}
        theirs = stranger.ask(f"{page}/response", headers=headers)
        unknown = stranger.ask("/jobs/no-such-job/response", headers=headers)
        assert theirs.status_code == unknown.status_code == 404
        assert theirs.data == unknown.data
        assert dict(theirs.headers) == dict(unknown.headers)
    assert owner.ask(f"{page}/response").text == "outer"
    # A task has no response.
    assert owner.ask(f"{page}/response", "POST").status_code == 405


def test_statistics_and_records_are_per_view(views: Views) -> None:
    visitor = views.visitor()
    page = visitor.start("/echo/7?token=secret", headers={"X-Extra": "hidden"})
    visitor.wait(page)
    record = views.state.control.get(job_id(page))
    assert record.task == "background_app.echo"
    assert record.title == "Echo 7"
    assert record.kwargs == {"number": 7}
    assert "secret" not in str(record)
    assert "hidden" not in str(record)
    assert record.queue == "celery"
    # The view prints into the log of its job.
    assert [line.text for line in views.state.control.logs(record.id)] == ["working on 7"]
