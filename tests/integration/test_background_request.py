"""The request that a background view sees in the worker."""

from __future__ import annotations

import io
import json
import re

import pytest

from background import HTML, Views, Visitor, job_id
from waiting import wait_until

pytest_plugins = ["background_fixtures"]


def test_method_url_query(visitor: Visitor) -> None:
    seen = visitor.json("/echo/3?q=a%20b&q=%C3%BC", "PUT", headers={"User-Agent": "a browser"})
    assert seen["method"] == "PUT"
    assert seen["url"] == "http://localhost/echo/3?q=a%20b&q=ü"
    assert (seen["number"], seen["args"]) == (3, {"q": "a b"})
    assert (seen["endpoint"], seen["blueprint"]) == ("pages.echo", "pages")
    assert seen["job"]


def test_form(visitor: Visitor) -> None:
    seen = visitor.json("/echo/1", "POST", data={"name": ["Ädä", "b"], "empty": ""})
    assert seen["form"] == {"name": ["Ädä", "b"], "empty": [""]}
    assert seen["files"] == {}
    # Who checks a signature wants it as it came.
    assert seen["data"] == "name=%C3%84d%C3%A4&name=b&empty="


def test_json(visitor: Visitor) -> None:
    assert visitor.json("/echo/1", "POST", json={"a": ["ü", 1]})["json"] == {"a": ["ü", 1]}


def test_another_body(visitor: Visitor) -> None:
    seen = visitor.json("/echo/1", "PUT", data="plain ü", content_type="text/plain")
    assert (seen["data"], seen["form"], seen["json"]) == ("plain ü", {}, None)


def test_large_bodies_do_not_travel_in_the_message(views: Views, visitor: Visitor) -> None:
    text = "x" * 1_200_000
    page = visitor.start("/echo/1", "POST", data={"text": text})
    payload = views.state.celery.store.payload(job_id(page))
    assert len(json.dumps(payload)) < 5_000
    visitor.wait(page)
    assert visitor.ask(f"{page}/response").get_json()["form"] == {"text": [text]}
    text = text[:1_000_000]
    assert visitor.json("/echo/1", "POST", json=[text])["json"] == [text]


def test_an_upload_of_5_mb(views: Views, visitor: Visitor) -> None:
    content = bytes(range(256)) * 20_000
    data = {
        "file": (io.BytesIO(content), "däta.csv", "text/csv"),
        "other": (io.BytesIO(b"small"), "b.txt"),
        "word": "x",
    }
    page = visitor.start("/echo/1", "POST", data=data)
    job = visitor.wait(page)
    seen = visitor.ask(f"{page}/response").get_json()
    assert set(seen["files"]) == {"file", "other"}
    assert seen["files"]["file"] == ["däta.csv", "text/csv", 5_120_000]
    assert seen["form"] == {"word": ["x"]}
    # They are nobody's download.
    assert job["files"] == []
    for name in (
        "upload-0",
        ".private/upload-0",
        ".private%2Fupload-0",
        "..%2F.private%2Fupload-0",
    ):
        assert visitor.ask(f"{page}/files/{name}").status_code == 404
    kept = list((views.folder / "files").glob("*/.private/upload-0"))
    assert any(path.read_bytes() == content for path in kept)
    # They go with the job.
    folder = next(path for path in kept if path.read_bytes() == content).parents[1]
    views.state.celery.files.remove(job_id(page))
    assert not folder.exists()


def test_an_upload_whose_job_never_came_to_be_is_removed(views: Views, visitor: Visitor) -> None:
    celery = views.state.celery
    # As of a web process that died between the two, and one that did not.
    celery.store.announce_files("never", 0.001)
    celery.files.keep("never", "upload-0", b"left over", 100)
    page = visitor.start("/echo/1", "POST", data={"file": (io.BytesIO(b"content"), "a.txt")})
    celery.store.announce_files(job_id(page), 0.001)
    visitor.wait(page)

    def kept() -> list[bytes]:
        return [path.read_bytes() for path in views.folder.glob("files/*/.private/upload-*")]

    def pruned() -> bool:
        # As the worker does it at times.
        for each in celery.store.prune():
            celery.files.remove(each)
        return b"left over" not in kept()

    assert b"left over" in kept()
    wait_until(pruned)
    assert visitor.ask(f"{page}/response").status_code == 200
    assert b"content" in kept()


def test_too_large_a_request(views: Views, visitor: Visitor) -> None:
    before = sorted((views.folder / "files").iterdir())
    data = {"file": (io.BytesIO(b"x" * 6_000_001), "big")}
    assert visitor.ask("/echo/1", "POST", data=data).status_code == 413
    assert visitor.ask("/echo/1", "PUT", data=b"x" * 6_000_001).status_code == 413
    # One that does not say how long it is.
    chunked = {
        "wsgi.input": io.BytesIO(b"x" * 6_000_001),
        "wsgi.input_terminated": True,
        "HTTP_TRANSFER_ENCODING": "chunked",
    }
    answer = visitor.ask("/echo/1", "PUT", environ_overrides=chunked, content_type="text/plain")
    assert answer.status_code == 413
    assert sorted((views.folder / "files").iterdir()) == before


def test_headers_of_a_list_only(visitor: Visitor) -> None:
    visitor.client.set_cookie("theme", "dark")
    sent = {
        "Accept-Language": "de", "User-Agent": "a browser", "X-Extra": "asked for",
        "Authorization": "Bearer x", "X-Api-Key": "x", "If-None-Match": '"x"', "Range": "bytes=0-1",
    }  # fmt: skip
    seen = visitor.json("/echo/1", headers=sent)
    headers = seen["headers"]
    assert headers["Accept-Language"] == "de"
    assert headers["User-Agent"] == "a browser"
    assert headers["X-Extra"] == "asked for"
    assert headers["Accept"] == HTML
    assert not {"Authorization", "X-Api-Key", "Cookie", "If-None-Match", "Range"} & headers.keys()
    assert seen["cookies"] == {}


def test_behind_a_proxy(visitor: Visitor) -> None:
    proxied = {
        "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "example.org", "X-Forwarded-Prefix": "/app",
    }  # fmt: skip
    answer = visitor.ask("/echo/2", headers=proxied)
    assert answer.location.startswith("/app/jobs/")
    # What the proxy passes on is without the prefix.
    page = answer.location.partition("?")[0].removeprefix("/app")
    visitor.ask(answer.location.removeprefix("/app"), headers=proxied)
    visitor.headers |= proxied
    job = visitor.wait(page)
    assert job["response_url"].startswith("/app/jobs/")
    seen = visitor.ask(f"{page}/response").get_json()
    assert seen["url"] == "https://example.org/app/echo/2"
    assert seen["link"] == "https://example.org/app/echo/1"
    assert seen["path"] == "/app/echo/1"
    assert seen["remote"] == "203.0.113.9"


def test_url_preprocessors_run_in_the_worker(visitor: Visitor) -> None:
    assert visitor.result("/de/greet/ada").text == "de ada"


def test_hooks_run_in_the_request_and_again_only_where_marked(
    views: Views, visitor: Visitor
) -> None:
    count = len(views.lines("before pages.echo"))
    assert visitor.json("/echo/1")["order"] == ["again"]
    assert len(views.lines("before pages.echo")) == count + 1
    assert visitor.ask("/echo/1?forbidden=1").status_code == 403
    assert "teardown pages.echo" in views.lines()


def test_guards_run_in_the_request_and_may_add_arguments(views: Views, visitor: Visitor) -> None:
    count = len(views.lines("guard"))
    assert visitor.result("/planned/trip").text == "trip gold"
    assert len(views.lines("guard")) == count + 1


def test_an_argument_that_cannot_travel(views: Views, visitor: Visitor) -> None:
    views.app.testing = True
    try:
        with pytest.raises(Exception, match="'person' from a decorator above .* is not JSON"):
            visitor.ask("/unfit")
    finally:
        views.app.testing = False
    assert visitor.ask("/unfit").status_code == 500


def test_the_user_of_flask_login(visitor: Visitor) -> None:
    assert visitor.ask("/account").status_code == 401
    visitor.ask("/login/ada", "POST")
    assert visitor.json("/echo/1")["user"] == "ada"
    assert visitor.result("/account").text == "account of ada"


def test_a_user_who_came_with_a_token(visitor: Visitor) -> None:
    assert visitor.json("/echo/1", headers={"X-Token": "robot's"})["user"] == "robot"


def test_the_locale_of_flask_babel(visitor: Visitor) -> None:
    # The selector asks a cookie, and cookies do not travel.
    visitor.client.set_cookie("lang", "de")
    assert visitor.json("/echo/1")["locale"] == "de"


def test_the_session_is_read(visitor: Visitor) -> None:
    visitor.ask("/put?colour=blue")
    assert visitor.json("/echo/1")["session"]["colour"] == "blue"


def test_the_session_is_not_written(views: Views, visitor: Visitor) -> None:
    page = visitor.start("/write-session", "POST")
    assert visitor.wait(page)["state"] == "failed"
    error = views.state.control.get(job_id(page)).error
    assert "session['count'] cannot be changed in a background view" in error
    assert "was sent when the job was enqueued" in error


def test_flashed_messages_come_with_the_response(visitor: Visitor) -> None:
    page = visitor.start("/flash", "POST")
    visitor.wait(page)
    response = visitor.ask(f"{page}/response")
    assert (response.status_code, response.location) == (302, "/messages")
    assert visitor.ask("/messages").get_json() == [["success", "The export is done."]]
    # Once, however often the response is loaded.
    visitor.ask(f"{page}/response")
    assert visitor.ask("/messages").get_json() == []
    assert visitor.result("/flash-here", "POST").text == "messages: ['Shown at once.']"
    assert visitor.ask("/messages").get_json() == []


def test_a_checked_csrf_token_counts(views: Views) -> None:
    app = views.make(WTF_CSRF_CHECK_DEFAULT=True, WTF_CSRF_TIME_LIMIT=3600)
    visitor = views.visitor(app)
    # CSRFProtect refuses in the request.
    assert visitor.ask("/question", "POST", data={"question": "why"}).status_code == 400
    token = visitor.ask("/token").text
    sent = {"question": "why", "csrf_token": token}
    assert visitor.result("/question", "POST", data=sent).text == "asked why"
    # By a header, which the form in the worker does not see.
    by_header = {"X-CSRFToken": token}
    answer = visitor.result("/question", "POST", data={"question": "who"}, headers=by_header)
    assert answer.text == "asked who"


def test_a_csrf_token_that_only_the_form_checks(visitor: Visitor) -> None:
    assert visitor.result("/question", "POST", data={"question": "why"}).status_code == 422
    token = visitor.ask("/token").text
    sent = {"question": "why", "csrf_token": token}
    assert visitor.result("/question", "POST", data=sent).text == "asked why"


def test_a_form_that_the_worker_renders_has_a_good_token(visitor: Visitor) -> None:
    page = visitor.result("/question").text
    found = re.search(r'value="([^"]+)"', page)
    assert found, page
    sent = {"question": "why", "csrf_token": found[1]}
    assert visitor.result("/question", "POST", data=sent).text == "asked why"


def test_async_views(visitor: Visitor) -> None:
    assert visitor.result("/awaited?what=this").text == "awaited this"


def test_views_call_each_other_as_functions(visitor: Visitor) -> None:
    assert visitor.result("/inner").text == "inner of outer"


def test_views_of_classes(views: Views, visitor: Visitor) -> None:
    assert visitor.result("/class").text == "counted by a class"
    views.app.testing = True
    try:
        with pytest.raises(Exception, match="decorators = \\[offload.background\\]"):
            visitor.ask("/method")
    finally:
        views.app.testing = False


def test_the_stream_of_the_request_is_refused(views: Views, visitor: Visitor) -> None:
    page = visitor.start("/read-stream", "POST", data="abc", content_type="text/plain")
    assert visitor.wait(page)["state"] == "failed"
    assert "cannot read request.stream" in views.state.control.get(job_id(page)).error


def test_websockets_are_refused(views: Views, visitor: Visitor) -> None:
    views.app.testing = True
    try:
        with pytest.raises(Exception, match="cannot serve a websocket"):
            visitor.ask("/socket", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    finally:
        views.app.testing = False


def test_the_jobs_of_this_visitor(views: Views, visitor: Visitor) -> None:
    page = visitor.start("/echo/77")
    assert page in visitor.result("/mine").text
    assert page not in views.visitor().result("/mine").text


def test_run_again_with_the_same_upload(views: Views, visitor: Visitor) -> None:
    data = {"file": (io.BytesIO(b"content"), "a.txt")}
    page = visitor.start("/echo/1", "POST", data=data)
    visitor.wait(page)
    again = views.state.control.retry(job_id(page))
    job = visitor.wait(f"/jobs/{again.id}")
    answer = visitor.ask(job["response_url"])
    assert answer.status_code == 200, answer.text
    assert answer.get_json()["files"] == {"file": ["a.txt", "text/plain", 7]}
