"""Who may see a job: its owner, by login or by a signed cookie, or who holds its key."""

from __future__ import annotations

import hashlib
import importlib
import secrets
import typing as t
from functools import cache
from urllib.parse import quote, urlsplit

from flask import current_app, has_app_context, has_request_context, request, url_for
from itsdangerous import BadSignature, Signer

from .._background import MINTED
from .words import BY_KEY

if t.TYPE_CHECKING:
    from flask import Response

    from .._config import Settings
    from .._jobs import JobRecord

__all__ = ["Access"]

OWNER_COOKIE = "offload_owner_"
KEY_COOKIE = "offload_key"
TOKEN_FIELD = "offload_token"  # noqa: S105
YEAR = 365 * 86_400


class Access:
    """The owner rule of one app.

    A person is known by login (``u:<id>``) and by browser (``c:<random id>``); each job notes
    both of the request that started it. On top, the answer that starts a job in a browser without
    a cookie carries a key for that one job in its address: of two first requests at once the
    browser keeps only the cookie of one.

    :param secret_key: Gives the key that cookies and job keys are signed with.
    """

    def __init__(self, settings: Settings, secret_key: t.Callable[[], str | bytes]) -> None:
        self._prefix = settings.jobs_prefix
        self._namespace = settings.namespace
        self._secret_key = secret_key
        self._longest_retention = int(max(*settings.retention.values(), settings.dead_retention))
        #: Returns the id of the user who is logged in. Unset, Flask-Login is asked.
        self.user_loader: t.Callable[[], str | None] | None = None

    # -- who is asking

    def identify(self) -> tuple[str, ...]:
        """The owners of a job that this request starts.

        A browser that has no valid cookie gets one with the answer. Empty outside a request.
        """
        if not has_request_context():
            return ()
        if not self._browser() and MINTED not in request.environ:
            request.environ[MINTED] = secrets.token_urlsafe(16)
        return self.visitor()

    def first_contact(self) -> bool:
        """Whether this browser came without an id of ours, and was given one."""
        return MINTED in request.environ

    def visitor(self) -> tuple[str, ...]:
        """The owners that this request stands for; may be empty."""
        if not has_request_context():
            return ()
        user, browser = self._user(), self._browser() or request.environ.get(MINTED)
        return (*((f"u:{user}",) if user else ()), *((f"c:{browser}",) if browser else ()))

    def _user(self) -> str | None:
        if self.user_loader is not None:
            user = self.user_loader()
            return None if user is None else str(user)
        if not hasattr(current_app, "login_manager"):
            return None
        current_user = importlib.import_module("flask_login").current_user
        return str(current_user.get_id()) if current_user.is_authenticated else None

    def _browser(self) -> str | None:
        """The browser id of the cookie, if it is ours."""
        cookie = request.cookies.get(_owner_cookie(self._secret_key(), self._namespace))
        if not cookie:
            return None
        try:
            return self._signer("owner").unsign(cookie).decode()
        except (BadSignature, UnicodeDecodeError):
            return None

    # -- what they may

    def owns(self, record: JobRecord) -> bool:
        """Whether this request comes from an owner of the job."""
        return self._owner(record) is not None

    def _owner(self, record: JobRecord) -> str | None:
        owners = set(record.owners)
        visitor = self.visitor()
        others = {o for o in owners if o.startswith("u:")} - set(visitor)
        if others and any(o.startswith("u:") for o in visitor):
            # Two people who share a browser share its cookie: the login decides between them.
            return None
        return next((o for o in visitor if o in owners), None)

    def admits(self, record: JobRecord) -> bool:
        """Whether this request may see the job, and stop it."""
        return self.owns(record) or bool(self.key(record.id)) or self._valid_key_cookie(record.id)

    def actor(self, record: JobRecord) -> str:
        """Who this admitted request is, for the record: an owner, or somebody with the key."""
        return self._owner(record) or BY_KEY

    def reader(self, job_id: str) -> str:
        """Whom a stream of this admitted request counts for: the visitor, or who came by the key
        of a job, as far as they can be told apart."""
        return next(iter(self.visitor()), f"{job_id} {request.remote_addr}")

    def key(self, job_id: str) -> str:
        """The key of the job in the address of this request; empty if there is no valid one."""
        key = request.args.get("key", "")
        return key if self._verifies("key", job_id, key) else ""

    def _valid_key_cookie(self, job_id: str) -> bool:
        return self._verifies("key", job_id, request.cookies.get(KEY_COOKIE, ""))

    def genuine(self, record: JobRecord) -> bool:
        """Whether a request that changes something was made by our own page, or by who holds the
        key, and not by a page of somebody else in the same browser (CSRF)."""
        token = request.form.get(TOKEN_FIELD, "")
        if self.key(record.id) or self._verifies("csrf", self._subject(record), token):
            return True
        site = request.headers.get("Sec-Fetch-Site")
        if site is not None:
            return site == "same-origin"
        origin = request.headers.get("Origin", "")
        return bool(origin) and _host(origin) == request.host

    # -- what answers carry

    def job_url(self, job_id: str) -> str:
        """The address of the page of a job, for the request that started it.

        It carries the key of the job if the request came without a cookie that will open it.
        """
        if not has_request_context():
            return self.page(job_id)
        key = self.key_for(job_id)
        return self.page(job_id) + (f"?key={key}" if key else "")

    def key_for(self, job_id: str) -> str:
        """The key of a job that this request may see; empty if its cookie will open it."""
        return "" if self._browser() else self._new_key(job_id)

    def next_key(self, record: JobRecord, new: JobRecord) -> str:
        """The key of a job that comes of another, for who sees that one by its key only."""
        return "" if self.owns(new) or not self.admits(record) else self._new_key(new.id)

    def _new_key(self, job_id: str) -> str:
        return self._signer("key").get_signature(job_id).decode()

    def page(self, job_id: str) -> str:
        """The address of the page of a job, without a key."""
        if has_app_context():
            try:
                return url_for("offload.job", job_id=job_id)
            except RuntimeError:
                # Outside a request, with no SERVER_NAME.
                pass
        return f"{self._prefix}/{quote(job_id, safe='')}"

    def form_token(self, record: JobRecord) -> str:
        """What a form of ours sends along as :data:`TOKEN_FIELD`."""
        return self._signer("csrf").get_signature(self._subject(record)).decode()

    def remember_key(self, response: Response, job_id: str) -> None:
        """Have the browser keep the key of a job, for the pages of that job only."""
        response.set_cookie(
            KEY_COOKIE,
            self.key(job_id),
            max_age=self._longest_retention,
            path=self.page(job_id),
            secure=request.is_secure,
            httponly=True,
            samesite="Lax",
        )

    def after_request(self, response: Response) -> Response:
        """Hand the browser the id that was made for it, if one was."""
        browser = request.environ.get(MINTED)
        if browser:
            response.set_cookie(
                _owner_cookie(self._secret_key(), self._namespace),
                self._signer("owner").sign(browser).decode(),
                max_age=YEAR,
                path="/",
                secure=request.is_secure,
                httponly=True,
                samesite="Lax",
            )
            response.vary.add("Cookie")
        return response

    # -- signing

    def _subject(self, record: JobRecord) -> str:
        return f"{record.id}\n{self.actor(record)}"

    def _verifies(self, purpose: str, value: str, signature: str) -> bool:
        return bool(signature) and self._signer(purpose).verify_signature(
            value.encode(), signature.encode("utf-8", "replace")
        )

    def _signer(self, purpose: str) -> Signer:
        return _signer(self._secret_key(), purpose)


def _signer(secret_key: str | bytes, purpose: str) -> Signer:
    return Signer(
        secret_key,
        salt=f"flask_offload.{purpose}",
        key_derivation="hmac",
        digest_method=hashlib.sha256,
    )


@cache
def _owner_cookie(secret_key: str | bytes, namespace: str) -> str:
    """The name of the cookie, another for each app: a browser has one set of cookies for all ports
    of a host, and apps there must not overwrite each other's."""
    signature = _signer(secret_key, "cookie").get_signature(namespace).decode()
    return OWNER_COOKIE + signature[:8]


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
