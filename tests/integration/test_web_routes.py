"""Every route of ours, and everybody who may come by. Driven by the map of routes: a new one fails
here until it is said who may use it."""

from __future__ import annotations

import typing as t
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from werkzeug.routing import Rule

from event_stream import stream
from flask_offload import JobState
from waiting import wait_until
from web_app import start
from web_house import OWNER_GETS, House, Visit, logged_in, methods, path, rules, with_cookies

if t.TYPE_CHECKING:
    from servers import Valkey

pytest_plugins = ["web_fixtures"]


# -- who may not


def other_user(house: House) -> Visit:
    visit = logged_in(house, "eve")
    start(house, visit.client)
    return visit


def other_user_at_the_same_browser(house: House) -> Visit:
    house.log_in(house.ada, "eve")
    return Visit(house.ada)


def anonymous(house: House) -> Visit:
    return Visit(house.browser())


def anonymous_with_jobs(house: House) -> Visit:
    client = house.browser()
    start(house, client)
    return Visit(client)


def logged_out_elsewhere(house: House) -> Visit:
    visit = logged_in(house, "ada")
    assert visit.client.get(f"/jobs/{house.job}").status_code == 200
    house.log_in(visit.client, "")
    return visit


def expired_session(house: House) -> Visit:
    days = house.app.permanent_session_lifetime // timedelta(days=1)
    fresh = with_cookies(house, session=house.cookie("ada", days - 1))
    assert fresh.client.get(f"/jobs/{house.job}").status_code == 200
    return with_cookies(house, session=house.cookie("ada", days + 1))


def tampered_session(house: House) -> Visit:
    return with_cookies(house, session=spoil(house.cookie("ada")))


def tampered_cookie(house: House) -> Visit:
    name, value = house.owner_cookie()
    return with_cookies(house, **{name: spoil(value)})


def cookie_of_another_app(house: House) -> Visit:
    name, value = house.owner_cookie()
    return with_cookies(house, **{f"{name[:-1]}~": value})


def cookie_with_another_signature(house: House) -> Visit:
    name, value = house.owner_cookie()
    browser = value.partition(".")[0]
    return with_cookies(house, **{name: f"{browser}.{house.key(browser, 'csrf')}"})


def tampered_link(house: House) -> Visit:
    return Visit(house.browser(), spoil(house.key(house.job)))


def link_to_another_job(house: House) -> Visit:
    return Visit(house.browser(), house.key(house.others))


def key_cookie_of_another_job(house: House) -> Visit:
    return with_cookies(house, offload_key=house.key(house.others))


def token_of_a_form_as_key(house: House) -> Visit:
    return Visit(house.browser(), house.key(house.job, "csrf"))


def spoil(signed: str) -> str:
    # Not at the end, where a character of base64 may say nothing.
    return ("B" if signed[0] == "A" else "A") + signed[1:]


STRANGERS = [
    other_user,
    other_user_at_the_same_browser,
    anonymous,
    anonymous_with_jobs,
    logged_out_elsewhere,
    expired_session,
    tampered_session,
    tampered_cookie,
    cookie_of_another_app,
    cookie_with_another_signature,
    tampered_link,
    link_to_another_job,
    key_cookie_of_another_job,
    token_of_a_form_as_key,
]


@pytest.mark.parametrize("who", STRANGERS)
def test_a_job_of_somebody_else_does_not_exist(house: House, who: t.Any) -> None:
    visit: Visit = who(house)
    before = house.store.get(house.job)
    for rule in rules(house.app):
        same_for_an_unknown_job(house, rule, visit)
    assert house.store.get(house.job) == before


def test_a_link_ends_with_its_job(house: House) -> None:
    house.run(house.job)
    visit = Visit(house.browser(), house.key(house.job))
    house.finish(house.job, 42)
    url = f"/jobs/{house.job}?key={visit.key}"
    assert visit.client.get(url, headers={"Accept": "application/json"}).json()["result"] == 42
    wait_until(lambda: house.job in house.store.prune())
    for rule in rules(house.app):
        same_for_an_unknown_job(house, rule, visit)


def same_for_an_unknown_job(house: House, rule: Rule, visit: Visit) -> None:
    unknown = "0" * len(house.job)
    for method in methods(rule):
        for accept in ("text/html", "application/json", "text/event-stream"):
            answers = [
                visit.client.request(
                    method, path(house.app, rule, job_id, visit.key), headers={"Accept": accept}
                )
                for job_id in (house.job, unknown)
            ]
            foreign, missing = answers
            case = f"{method} {rule.rule}, {accept}"
            assert foreign.status_code == missing.status_code == 404, case
            assert foreign.content == missing.content, case
            assert headers(foreign) == headers(missing), case
            assert house.job not in foreign.text, case


def headers(response: httpx.Response) -> list[tuple[str, str]]:
    return [(name, value) for name, value in response.headers.multi_items() if name != "date"]


# -- who may


def owner(house: House) -> Visit:
    return Visit(house.ada)


def owner_in_another_browser(house: House) -> Visit:
    return logged_in(house, "ada")


def owner_after_the_session(house: House) -> Visit:
    house.ada.cookies.delete("session")
    return Visit(house.ada)


def by_the_link(house: House) -> Visit:
    return Visit(house.browser(), house.key(house.job))


def by_the_cookie_of_the_link(house: House) -> Visit:
    return with_cookies(house, offload_key=house.key(house.job))


FRIENDS = [
    owner,
    owner_in_another_browser,
    owner_after_the_session,
    by_the_link,
    by_the_cookie_of_the_link,
]


@pytest.mark.parametrize("who", FRIENDS)
def test_who_may(valkey: Valkey, tmp_path: Path, who: t.Any) -> None:
    house = House(valkey.url, tmp_path)
    with house.served():
        house.people()
        house.run(house.job)
        house.finish(house.job, "done")
        visit: Visit = who(house)
        for rule in rules(house.app):
            for method in methods(rule):
                url = path(house.app, rule, house.job, visit.key)
                response = visit.client.request(method, url)
                expected = OWNER_GETS[rule.endpoint]
                if visit.key and rule.endpoint == "offload.job":
                    expected = 303  # to the address without the key
                assert response.status_code == expected, f"{method} {rule.rule}"
                if method != "POST":
                    assert response.headers["Cache-Control"] == "no-store", f"{method} {rule.rule}"


# -- while a page is open


def test_access_is_checked_again_when_a_stream_reconnects(house: House) -> None:
    visit = logged_in(house, "ada")
    urls = [f"/jobs/{house.job}/events", f"/jobs/events?id={house.job}"]
    for url in urls:
        with stream(visit.client, url) as events:
            name, job, last_id = next(events)
            assert (name, job["id"]) == ("job", house.job)
    for user in ("eve", ""):
        house.log_in(visit.client, user)
        for url in urls:
            again = visit.client.get(url, headers={"Last-Event-ID": last_id})
            assert again.status_code == 404
            assert house.job not in again.text
    house.log_in(visit.client, "ada")
    for url in urls:
        with stream(visit.client, url, **{"Last-Event-ID": last_id}) as events:
            assert next(events)[1]["id"] == house.job


# -- what changes something


CROSS_SITE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "https://other.example.org"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "", "Origin": "{site}"},
    {"Origin": "https://evil.example"},
    {"Origin": "{site}.evil.example"},
    {"Origin": "null"},
    {},
]


@pytest.mark.parametrize("sent", CROSS_SITE, ids=str)
def test_a_page_of_somebody_else_changes_nothing(house: House, sent: dict[str, str]) -> None:
    found = 0
    client = house.ada
    client.cookies.set("offload_key", house.key(house.job))
    del client.headers["Sec-Fetch-Site"]
    sent = {name: value.format(site=house.url) for name, value in sent.items()}
    for rule in rules(house.app):
        for method in set(methods(rule)) - {"GET", "HEAD"}:
            for accept in ("text/html", "application/json"):
                response = client.request(
                    method, path(house.app, rule, house.job), headers={"Accept": accept, **sent},
                    data={"offload_token": house.key(house.others, "csrf")},
                )  # fmt: skip
                assert response.status_code == 403, f"{method} {rule.rule}"
                found += 1
    assert found >= 2
    assert house.store.get(house.job).state is JobState.QUEUED
    assert len(house.store.newest()) == 2
