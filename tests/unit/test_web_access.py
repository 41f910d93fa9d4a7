"""Who may see a job."""

from __future__ import annotations

import typing as t
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask, Response
from werkzeug.http import parse_cookie

from flask_offload._config import Settings
from flask_offload._jobs import JobRecord, JobState
from flask_offload._web import Access

JOB = "5e1e9b1c"


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.add_url_rule("/jobs/<job_id>", "offload.job", lambda job_id: job_id)
    return app


@pytest.fixture
def access(tmp_path: Path) -> Access:
    return make(tmp_path)


def make(folder: Path, secret: str = "s", namespace: str = "shop") -> Access:
    settings = Settings(directory=folder, files_url="f", namespace=namespace)
    return Access(settings, lambda: secret)


def job(*owners: str) -> JobRecord:
    return JobRecord(JOB, "app.report", JobState.QUEUED, owners=owners)


def cookie_of(response: Response) -> dict[str, str]:
    """The name and value of the cookie that an answer sets, as a request header."""
    found = [parse_cookie(line.split(";")[0]) for line in response.headers.getlist("Set-Cookie")]
    assert len(found) == 1
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in found[0].items())}


def first_contact(app: Flask, access: Access, **options: t.Any) -> tuple[str, str, Response]:
    """A request that starts a job: the owner, the address of the job, the answer."""
    with app.test_request_context("/", **options):
        (owner,) = access.identify()
        return owner, access.job_url(JOB), access.after_request(Response())


def test_nobody_outside_a_request(access: Access) -> None:
    assert access.identify() == ()
    assert access.visitor() == ()
    assert access.job_url("a b") == "/jobs/a%20b"


def test_outside_a_request_with_a_server_name(app: Flask, access: Access) -> None:
    app.config["SERVER_NAME"] = "example.org"
    with app.app_context():
        assert access.job_url(JOB) == f"http://example.org/jobs/{JOB}"
    app.config["SERVER_NAME"] = None
    with app.app_context():
        assert access.job_url(JOB) == f"/jobs/{JOB}"


def test_first_contact(app: Flask, access: Access) -> None:
    owner, url, response = first_contact(app, access)
    assert owner.startswith("c:")
    assert len(owner) > 20
    header = response.headers["Set-Cookie"]
    for attribute in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=31536000"):
        assert attribute in header
    assert "Secure" not in header
    assert owner[2:] in header
    assert "Cookie" in response.headers["Vary"]
    # The cookie opens the job, without the key.
    with app.test_request_context("/", headers=cookie_of(response)):
        assert access.identify() == (owner,)
        assert access.admits(job(owner))
        assert access.job_url(JOB) == f"/jobs/{JOB}"
        assert "Set-Cookie" not in access.after_request(Response()).headers
    # The key opens it, without the cookie.
    with app.test_request_context(url):
        assert access.visitor() == ()
        assert access.admits(job(owner))


def test_the_key_is_for_one_job(app: Flask, access: Access) -> None:
    _, url, _ = first_contact(app, access)
    (key,) = parse_qs(urlsplit(url).query)["key"]
    other = JobRecord("other", "app.report", JobState.QUEUED)
    for where in ({"query_string": {"key": key}}, {"headers": {"Cookie": f"offload_key={key}"}}):
        with app.test_request_context("/", **where):
            assert access.admits(job())
            assert not access.admits(other)


def test_secure_where_the_request_is(app: Flask, access: Access) -> None:
    _, _, response = first_contact(app, access, base_url="https://example.org")
    assert "Secure" in response.headers["Set-Cookie"]


def test_a_request_has_one_browser(app: Flask, access: Access) -> None:
    with app.test_request_context("/"):
        assert access.visitor() == ()
        owners = access.identify()
        assert access.identify() == owners
        with app.app_context():
            assert access.identify() == owners
        assert access.visitor() == owners


def test_two_first_requests_at_once_lose_nothing(app: Flask, access: Access) -> None:
    one, url, first = first_contact(app, access)
    other, _, second = first_contact(app, access)
    assert one != other
    # The browser keeps the second cookie; the first job opens by its key.
    with app.test_request_context(url, headers=cookie_of(second)):
        assert access.admits(job(one))
        response = Response()
        access.remember_key(response, JOB)
    header = response.headers["Set-Cookie"]
    assert f"Path=/jobs/{JOB};" in header
    assert "HttpOnly" in header
    with app.test_request_context("/", headers=cookie_of(response)):
        assert access.admits(job(one))
    assert cookie_of(first) != cookie_of(second)


@pytest.mark.parametrize(
    "forge",
    [
        lambda value: value + "x",
        lambda value: "x" + value,
        lambda value: value.partition(".")[0],
        lambda value: "ü.ü",
        lambda value: "",
        lambda value: ".",
    ],
)
def test_a_forged_cookie_is_replaced(
    app: Flask, access: Access, forge: t.Callable[[str], str]
) -> None:
    owner, _, response = first_contact(app, access)
    name, _, value = cookie_of(response)["Cookie"].partition("=")
    with app.test_request_context("/", headers={"Cookie": f"{name}={forge(value)}"}):
        assert access.visitor() == ()
        assert not access.admits(job(owner))
        assert access.identify() not in ((owner,), ())
        assert "Set-Cookie" in access.after_request(Response()).headers


@pytest.mark.parametrize("key", ["", "x", "ü", "\ud800", "x" * 10_000, "\0"])
def test_a_forged_key_admits_nobody(app: Flask, access: Access, key: str) -> None:
    with app.test_request_context("/") as context:
        context.request.args = {"key": key}  # type: ignore[assignment]
        assert not access.admits(job("c:somebody"))


def test_another_secret_is_another_app(app: Flask, access: Access, tmp_path: Path) -> None:
    owner, url, response = first_contact(app, access)
    other = make(tmp_path, "another")
    with app.test_request_context(url, headers=cookie_of(response)):
        assert access.admits(job(owner))
        assert not other.admits(job(owner))


@pytest.mark.parametrize(("secret", "namespace"), [("another", "shop"), ("s", "another")])
def test_apps_on_one_host_leave_each_others_cookies_alone(
    app: Flask, access: Access, tmp_path: Path, secret: str, namespace: str
) -> None:
    # Cookies know neither ports nor, at the path /, prefixes.
    owner, _, response = first_contact(app, access)
    cookies = cookie_of(response)["Cookie"]
    other = make(tmp_path, secret, namespace)
    with app.test_request_context("/", headers={"Cookie": cookies}):
        (other_owner,) = other.identify()
        response = other.after_request(Response())
    cookies += "; " + cookie_of(response)["Cookie"]
    with app.test_request_context("/", headers={"Cookie": cookies}):
        assert access.identify() == (owner,)
        assert other.identify() == (other_owner,)
        assert "Set-Cookie" not in other.after_request(Response()).headers


def test_a_signature_for_one_purpose_is_none_for_another(app: Flask, access: Access) -> None:
    with app.test_request_context("/"):
        token = access.form_token(job())
    with app.test_request_context("/", query_string={"key": token}):
        assert not access.admits(job())


# -- logged in


def test_login_and_browser_both_own(app: Flask, access: Access) -> None:
    _, _, response = first_contact(app, access)
    cookie = cookie_of(response)
    access.user_loader = lambda: "7"
    with app.test_request_context("/", headers=cookie):
        owners = access.identify()
    assert owners[0] == "u:7"
    assert len(owners) == 2
    # From another browser, by login; after logout, in this browser.
    with app.test_request_context("/"):
        assert access.admits(job(*owners))
    access.user_loader = lambda: None
    with app.test_request_context("/", headers=cookie):
        assert access.admits(job(*owners))
    with app.test_request_context("/"):
        assert not access.admits(job(*owners))


def test_login_keeps_what_was_started_before_it(app: Flask, access: Access) -> None:
    owner, _, response = first_contact(app, access)
    access.user_loader = lambda: "7"
    with app.test_request_context("/", headers=cookie_of(response)):
        assert access.admits(job(owner))


def test_who_shares_a_browser_does_not_share_jobs(app: Flask, access: Access) -> None:
    owner, _, response = first_contact(app, access)
    access.user_loader = lambda: "8"
    with app.test_request_context("/", headers=cookie_of(response)):
        assert not access.admits(job("u:7", owner))
        assert access.admits(job("u:8", owner))


# -- requests that change something


@pytest.mark.parametrize(
    ("headers", "genuine"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, False),
        ({"Origin": "http://localhost"}, True),
        ({"Origin": "http://localhost.evil.example"}, False),
        ({"Origin": "http://localhost:81"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({}, False),
    ],
)
def test_headers_tell_our_page_from_others(
    app: Flask, access: Access, headers: dict[str, str], genuine: bool
) -> None:
    with app.test_request_context("/", method="POST", headers=headers):
        assert access.genuine(job()) is genuine


def test_a_form_of_ours_without_headers(app: Flask, access: Access) -> None:
    owner, url, response = first_contact(app, access)
    cookie = cookie_of(response)
    record = job(owner)
    with app.test_request_context("/", headers=cookie):
        token = access.form_token(record)

    def genuine(record: JobRecord, path: str = "/", **headers: str) -> bool:
        form = {"offload_token": token}
        with app.test_request_context(path, method="POST", headers=headers, data=form):
            return access.genuine(record)

    assert genuine(record, **cookie)
    # It is for one job and one person.
    assert not genuine(JobRecord("other", "t", JobState.QUEUED, owners=(owner,)), **cookie)
    assert not genuine(record)
    token = ""
    assert not genuine(record, **cookie)
    # A key in the address is nobody's but the client's; a cookie comes with any request.
    assert genuine(record, url)
    key = parse_qs(urlsplit(url).query)["key"][0]
    assert not genuine(record, Cookie=f"offload_key={key}")
