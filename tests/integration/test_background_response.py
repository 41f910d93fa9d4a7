"""The response of a background view: kept whole, served as the app would."""

from __future__ import annotations

import re

import pytest

from background import Views, Visitor, job_id

pytest_plugins = ["background_fixtures"]


def test_status_and_headers(visitor: Visitor) -> None:
    response = visitor.result("/respond/teapot")
    assert (response.status, response.text) == ("418 I'M A TEAPOT", "short and stout")
    assert response.headers["X-Own"] == "yes"
    # The fence around our own pages is not around the app's.
    assert response.headers["Content-Security-Policy"] == "img-src *"
    assert "Content-Security-Policy" not in visitor.result("/outer").headers


def test_hooks_after_the_request_run_once_when_it_is_served(visitor: Visitor) -> None:
    page = visitor.start("/respond/late")
    visitor.wait(page)
    for _ in range(2):
        response = visitor.ask(f"{page}/response")
        assert sorted(response.headers.getlist("X-After")) == ["app", "blueprint"]
        # Of after_this_request, which belongs to the run of the view.
        assert response.headers["X-Late"] == "in the worker"


def test_a_redirect_leads_where_the_view_meant(visitor: Visitor) -> None:
    response = visitor.result("/respond/redirect")
    assert (response.status_code, response.location) == (302, "/messages?page=2")


def test_cookies_and_headers_of_a_connection_are_not_kept(views: Views, visitor: Visitor) -> None:
    page = visitor.start("/respond/cookie")
    visitor.wait(page)
    for _ in range(2):
        response = visitor.ask(f"{page}/response")
        assert response.text == "with a cookie"
        assert "secret" not in str(response.headers)
        assert not {"Connection", "X-Hop"} & set(response.headers.keys())
    assert "for one answer" not in str(views.state.celery.store.response(job_id(page)))
    assert "set a cookie, which is not kept" in views.said


def test_a_file(views: Views, visitor: Visitor) -> None:
    page = visitor.start("/respond/file")
    job = visitor.wait(page)
    assert job["files"] == []
    response = visitor.ask(f"{page}/response")
    assert response.data == b"0123456789" * 20_000
    assert response.headers["Content-Disposition"] == "attachment; filename=rows.csv"
    assert response.mimetype == "text/csv"
    assert response.content_length == 200_000
    part = visitor.ask(f"{page}/response", headers={"Range": "bytes=5-14"})
    assert (part.status_code, part.data) == (206, b"5678901234")
    head = visitor.ask(f"{page}/response", "HEAD")
    assert (head.status_code, head.data, head.content_length) == (200, b"", 200_000)
    assert len(list((views.folder / "files").glob("*/.private/response-*"))) == 1


@pytest.mark.parametrize(
    ("kind", "data"),
    [("large", ("ü" * 100_000).encode()), ("binary", b"\xff\x00\xfe"), ("empty", b"")],
)
def test_bodies_of_any_kind(visitor: Visitor, kind: str, data: bytes) -> None:
    response = visitor.result(f"/respond/{kind}")
    assert response.data == data
    assert response.status_code == (204 if kind == "empty" else 200)


def test_nobody_keeps_a_copy(visitor: Visitor) -> None:
    response = visitor.result("/respond/public")
    assert response.headers["Cache-Control"] == "no-store"
    assert "Cookie" in response.vary
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "same-origin"


def test_an_error_that_the_app_has_an_answer_to_is_no_failure(visitor: Visitor) -> None:
    assert visitor.result("/respond/missing").status_code == 404
    page = visitor.start("/fail/handled")
    assert visitor.wait(page)["state"] == "succeeded"
    response = visitor.ask(f"{page}/response")
    assert (response.status_code, response.text) == (404, "handled: nothing there")


def test_a_failed_view_is_shown_by_the_apps_handler(views: Views, visitor: Visitor) -> None:
    page = visitor.start("/fail/broken")
    job = visitor.wait(page)
    assert job["state"] == "failed"
    record = views.state.control.get(job_id(page))
    assert (record.error_type, record.error) == ("RuntimeError", "broken inside")
    response = visitor.ask(visitor.ask(page).location)
    assert (response.status_code, response.text) == (500, "sorry: RuntimeError")
    api = views.visitor(Accept="application/json", Prefer="wait=9").ask("/fail/broken")
    assert (api.status_code, api.text) == (500, "sorry: RuntimeError")


def test_a_status_of_500_and_above_is_a_failure(views: Views, visitor: Visitor) -> None:
    page = visitor.start("/fail/busy")
    assert visitor.wait(page)["state"] == "failed"
    assert "503" in views.state.control.get(job_id(page)).error
    response = visitor.ask(f"{page}/response")
    assert (response.status_code, response.text) == (503, "busy")


def test_retries(views: Views, visitor: Visitor) -> None:
    page = visitor.start("/flaky")
    job = visitor.wait(page)
    assert (job["state"], job["attempt"]) == ("succeeded", 3)
    assert visitor.ask(f"{page}/response").text == "attempt 3"
    assert views.lines("flaky") == ["flaky 1", "flaky 2", "flaky 3"]


@pytest.mark.parametrize(
    ("kind", "why"),
    [("stream", "cannot stream its response"), ("huge", "OFFLOAD_MAX_RESPONSE")],
)
def test_what_cannot_be_kept_is_refused(
    views: Views, visitor: Visitor, kind: str, why: str
) -> None:
    page = visitor.start(f"/respond/{kind}")
    job = visitor.wait(page)
    assert (job["state"], job["response_url"]) == ("failed", None)
    assert why in views.state.control.get(job_id(page)).error
    # The page of the job says that it did not work.
    assert visitor.ask(page).status_code == 200
    assert visitor.ask(f"{page}/response").location == page


def test_a_cancelled_view_has_no_response(views: Views, visitor: Visitor) -> None:
    page = visitor.start("/slow?gate=cancelled")
    headers = {"Sec-Fetch-Site": "same-origin"}
    assert visitor.ask(f"{page}/cancel", "POST", headers=headers).status_code == 303
    assert visitor.wait(page)["state"] == "cancelled"
    assert visitor.ask(page).status_code == 200
    assert visitor.ask(f"{page}/response").location == page


def test_the_page_says_nothing_of_the_request(views: Views, visitor: Visitor) -> None:
    page = visitor.start("/echo/1?q=in-query", "POST", data={"word": "in-body"})
    visitor.wait(page)
    text = visitor.ask(f"{page}?stay=1").text + visitor.ask(f"{page}?format=json").text
    assert not re.search("in-query|in-body", text)
    assert "in-body" not in views.said
