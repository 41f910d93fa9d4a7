"""A background view: the function, its task, and the answer to who calls it."""

from __future__ import annotations

import hashlib
import json
import time
import typing as t
import uuid
from dataclasses import dataclass, field

from flask import Flask, Response, current_app, redirect, request, session

from .._store import StoreUnavailable
from ..exceptions import BackgroundError, ConfigError, EnqueueError
from .capture import capture
from .response import serve
from .run import run

if t.TYPE_CHECKING:
    from .._celery import Job, OffloadCelery

__all__ = ["MARK", "View"]

#: Where a decorated function names its view. functools.wraps copies it to the decorators above.
MARK = "_offload_view"
#: Seconds after which an API client may ask again.
RETRY_AFTER = 2
#: Headers of requests that nobody made on purpose, yet.
PREFETCH = ("Sec-Purpose", "Purpose", "X-Purpose", "X-Moz")


@dataclass(frozen=True, eq=False)
class View:
    """A function that is a view for workers.

    :param options: Of Celery's decorator.
    :param unique: Whether a second request for the same gets the job of the first, also by POST.
    """

    function: t.Callable[..., t.Any]
    options: dict[str, t.Any] = field(default_factory=dict)
    retries: int = 0
    unique: bool = False

    @property
    def path(self) -> tuple[str, str]:
        """Module, and qualified name in it."""
        name, qualname = self.function.__name__, self.function.__qualname__
        # The views that Flask makes of classes are renamed, and keep their first long name.
        return self.function.__module__, qualname if qualname.endswith(name) else name

    @property
    def is_local(self) -> bool:
        """Whether a function, such as a factory of apps, has declared it."""
        return "<locals>" in self.path[1]

    def task_name(self, celery: OffloadCelery) -> str:
        """The name of its task."""
        module, name = self.path
        return t.cast("str", celery.gen_task_name(name, module))

    def register(self, celery: OffloadCelery) -> None:
        """Make it a task of an app."""

        def task(http_request: str, **view_args: t.Any) -> None:
            run(self, http_request)

        for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(task, attribute, getattr(self.function, attribute))
        celery.task(task, name=self.task_name(celery), **self.options)

    def function_of(self, app: Flask, endpoint: str | None) -> t.Callable[..., t.Any]:
        """The function, of that app: a factory makes another one for each app."""
        view = getattr(app.view_functions.get(endpoint or ""), MARK, self)
        same = isinstance(view, View) and view.path == self.path
        return view.function if same else self.function

    def __call__(self, given: dict[str, t.Any]) -> Response:
        """Answer a request: enqueue it, and say where its job is."""
        if request.headers.get("Upgrade", "").lower() == "websocket":
            raise BackgroundError(
                f"The view {request.endpoint!r} cannot serve a websocket: a job has no connection. "
                "Take @offload.background off, and start a task from the view."
            )
        if request.method == "HEAD" or _is_prefetch():
            # Nothing is started for who only looks.
            return _fresh(Response(status=204))
        if "offload" not in current_app.extensions:
            raise ConfigError(f"{current_app!r} has no Offload. Call offload.init_app(app) first.")
        state = current_app.extensions["offload"]
        job = self._enqueue(state.celery, given)
        prefer = _preferences()
        wait = min(prefer.get("wait", 0.0), state.settings.max_wait)
        if wait and _over(state.celery, job.id, wait):
            response = serve(state.control, job.id)
            if response is not None:
                response.vary.update(("Accept", "Prefer"))
                response.headers["Preference-Applied"] = f"wait={wait:g}"
                return response
        return _fresh(_accepted(job, prefer, wait))

    def _enqueue(self, celery: OffloadCelery, given: dict[str, t.Any]) -> Job:
        job_id = str(uuid.uuid4())
        task = celery.tasks[self.task_name(celery)]
        try:
            data, digest, kept = capture(celery, job_id, given)
            options: dict[str, t.Any] = {"task_id": job_id}
            if self.unique or request.method == "GET":
                asked = hashlib.sha256(f"{_person(celery)}\n{digest}".encode()).hexdigest()
                options["unique"] = f"{task.name} {asked}"
            shown = {name: _shown(value) for name, value in given.items()}
            shown.pop("http_request", None)
            job: Job = task.apply_async((json.dumps(data),), shown, **options)
        except StoreUnavailable as error:
            # Of what was kept before the enqueue: nothing is there yet.
            raise EnqueueError(f"The job was not accepted. {error}") from error
        except BaseException:
            celery.files.remove(job_id)
            raise
        if job.id != job_id and kept:
            celery.files.remove(job_id)
        return job


def _person(celery: OffloadCelery) -> str:
    """Who asks, as far as two requests at once can tell."""
    origin = celery.origin()
    owner = next(iter(origin.owners), "")
    if origin.first and not owner.startswith("u:") and session:
        # Both of a first double-click come without our cookie; what they share is the session.
        name = current_app.config["SESSION_COOKIE_NAME"]
        return f"s:{request.cookies.get(name, owner)}"
    return owner


def _shown(value: t.Any) -> t.Any:
    return value if isinstance(value, str | int | float) else str(value)


def _is_prefetch() -> bool:
    values = " ".join(request.headers.get(name, "") for name in PREFETCH).lower()
    return "prefetch" in values or "preview" in values


def _preferences() -> dict[str, float]:
    """What ``Prefer`` asks for, of what is known here; see RFC 7240."""
    found: dict[str, float] = {}
    for preference in ",".join(request.headers.getlist("Prefer")).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        if name == "respond-async":
            found.setdefault(name, 1.0)
        elif name == "wait" and value.isascii() and value.isdigit():
            found.setdefault(name, float(value[:9]))
    return found


def _over(celery: OffloadCelery, job_id: str, wait: float) -> bool:
    """Wait for the end of a job."""
    end = time.monotonic() + wait
    with celery.feed.subscribe([job_id]) as changes:
        while True:
            state = celery.store.state(job_id)
            if state is None or state.finished:
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            # Not longer: an event may be lost.
            changes.wait(min(left, 1.0))


def _accepted(job: Job, prefer: dict[str, float], wait: float) -> Response:
    accept = request.accept_mimetypes
    if not prefer and accept["application/json"] <= accept["text/html"]:
        return t.cast("Response", redirect(job.url, 303))
    body = json.dumps({"id": job.id, "state": "queued", "url": job.url})
    response = Response(f"{body}\n", 202, mimetype="application/json")
    response.headers["Location"] = job.url
    response.headers["Retry-After"] = str(RETRY_AFTER)
    applied = [*(["respond-async"] if "respond-async" in prefer else [])]
    applied += [f"wait={wait:g}"] if wait else []
    if applied:
        response.headers["Preference-Applied"] = ", ".join(applied)
    return response


def _fresh(response: Response) -> Response:
    """It answers this request, and no other."""
    response.headers["Cache-Control"] = "no-store"
    response.vary.update(("Accept", "Cookie", "Prefer"))
    return response
