"""The site of :mod:`web_app` with a login, who comes by there, and all routes that there are."""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

import httpx
from flask import Flask, request, session
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import TimestampSigner
from werkzeug.routing import Rule

from web_app import Site, start

#: What the owner of a finished job gets of each route, as a browser. Anybody who is not admitted
#: gets what there is for a job that does not exist. The lower part is of routes that some versions
#: do not have.
OWNER_GETS = {
    "offload.job": 200,
    "offload.events": 200,
    "offload.list_events": 200,
    "offload.cancel": 303,
    "offload.file": 200,
    "offload.log": 200,
    "offload.response": 303,
    "offload.retry": 409,
}
#: Of no job, and for everybody.
PUBLIC = {"offload.asset"}


def rules(app: Flask) -> list[Rule]:
    """Our routes that are about a job."""
    ours = [rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("offload.")]
    unknown = {rule.endpoint for rule in ours} - OWNER_GETS.keys() - PUBLIC
    assert not unknown, f"Say in OWNER_GETS, or in PUBLIC, who may use {unknown}."
    return [rule for rule in ours if rule.endpoint in OWNER_GETS]


def path(app: Flask, rule: Rule, job_id: str, key: str = "") -> str:
    """The address of a route for a job."""
    values = {"job_id": job_id, "name": "report.txt"}
    values = {name: value for name, value in values.items() if name in rule.arguments}
    url = app.url_map.bind("localhost").build(rule.endpoint, values)
    query = {} if "job_id" in values else {"id": job_id}
    query |= {"key": key} if key else {}
    return str(httpx.URL(url, params=query)) if query else url


def methods(rule: Rule) -> list[str]:
    return sorted((rule.methods or set()) - {"OPTIONS"})


class House(Site):
    """A site with a login. The job is Ada's, who started it in her browser."""

    def __init__(self, url: str, directory: Path, **options: t.Any) -> None:
        super().__init__(url, directory, **options)
        self.access.user_loader = lambda: session.get("user")
        self.app.add_url_rule("/login", view_func=self._log_in, methods=["POST"])

    def _log_in(self) -> str:
        session.clear()
        if "user" in request.form:
            session["user"] = request.form["user"]
        return ""

    def people(self) -> None:
        self.ada = self.browser()
        self.log_in(self.ada, "ada")
        self.job = start(self, self.ada)
        self.attach(self.job, "report.txt", b"x")
        assert {owner[:2] for owner in self.store.get(self.job).owners} == {"u:", "c:"}
        self.others = start(self, self.ada)

    def log_in(self, client: httpx.Client, user: str) -> None:
        client.post("/login", data={"user": user} if user else {})

    def key(self, job_id: str, purpose: str = "key") -> str:
        """What the answer that starts a job carries for a browser that is new."""
        return self.access._signer(purpose).get_signature(job_id).decode()

    def cookie(self, user: str, days: int = 0) -> str:
        """The cookie of a session of some days ago."""

        class Then(TimestampSigner):
            def get_timestamp(self) -> int:
                return int(time.time()) - days * 86_400

        interface = self.app.session_interface
        assert isinstance(interface, SecureCookieSessionInterface)
        serializer = interface.get_signing_serializer(self.app)
        assert serializer is not None
        serializer.signer = Then
        return str(serializer.dumps({"user": user}))

    def owner_cookie(self) -> tuple[str, str]:
        ((name, value),) = [
            (name, value) for name, value in self.ada.cookies.items() if name != "session"
        ]
        return name, value


class Visit(t.NamedTuple):
    """Somebody who comes by.

    :param key: In the address.
    """

    client: httpx.Client
    key: str = ""


def with_cookies(house: House, **cookies: str) -> Visit:
    client = house.browser()
    client.cookies.update(cookies)
    return Visit(client)


def logged_in(house: House, user: str) -> Visit:
    client = house.browser()
    house.log_in(client, user)
    return Visit(client)
