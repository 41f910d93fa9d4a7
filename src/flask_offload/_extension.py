"""``Offload``: the extension, which wires all layers for each app."""

from __future__ import annotations

import functools
import secrets
import typing as t
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flask import Flask, current_app, has_request_context, request
from werkzeug.local import LocalProxy

from ._background import BackgroundViews, locale
from ._celery import Job, OffloadCelery, Origin
from ._config import Settings
from ._control import Control
from ._server import EmbeddedServer
from ._store import FileStore, Store
from ._tasks import OffloadedTask, task_options
from ._web import (
    Access,
    job_part,
    jobs_list,
    make_blueprint,
    register_error_handlers,
    scripts,
)
from .exceptions import ConfigError, JobNotFound, NoAppError

__all__ = ["Offload", "OffloadState"]

P = t.ParamSpec("P")
R = t.TypeVar("R")
KEY = "offload"


class _Verbs:
    """What a :class:`.Job` asks of the layers above it."""

    def __init__(self, control: Control, access: Access) -> None:
        self.cancel = control.cancel
        self.retry = control.retry
        self.url = access.job_url


@dataclass(frozen=True)
class OffloadState:
    """What the extension keeps of one app, in ``app.extensions["offload"]``.

    :param celery: The Celery app, for ``celery -A "module:celery" worker``.
    :param server: The embedded server; ``None`` where ``OFFLOAD_URL`` is set.
    """

    settings: Settings
    celery: OffloadCelery
    control: Control
    access: Access
    server: EmbeddedServer | None


@dataclass(frozen=True)
class _Declared:
    """A task of an extension that serves several apps."""

    fun: t.Callable[..., t.Any]
    options: dict[str, t.Any] = field(default_factory=dict)


class Offload(BackgroundViews):
    """Moves slow work out of the requests of a Flask app.

    .. code-block:: python

        app = Flask(__name__)
        offload = Offload(app)
        celery = offload.celery      # celery -A app.celery worker --loglevel=info

    or, with an app factory, ``offload = Offload()`` and ``offload.init_app(app)``.

    :param app: The app, where there is just one.
    :raises ConfigError: See :meth:`init_app`.
    """

    def __init__(self, app: Flask | None = None) -> None:
        super().__init__()
        self._app: weakref.ref[Flask] | None = None
        self._declared: dict[str, _Declared] = {}
        if app is not None:
            self.init_app(app)
            # Weak, so that a test which makes an app for each case does not keep them all.
            self._app = weakref.ref(app)

    def init_app(self, app: Flask) -> None:
        """Set up ``app``. Starts nothing: the first use does.

        :raises ConfigError: A setting is wrong, ``SECRET_KEY`` is missing, or the app uses the
            extension, or the addresses of the job pages, already.
        """
        if KEY in app.extensions:
            raise ConfigError("This app has an Offload already. Use app.extensions['offload'].")
        settings = Settings.from_app(app)
        _check_prefix(app, settings.jobs_prefix)
        server = EmbeddedServer(settings.directory) if settings.url is None else None
        url = settings.url or (server.url if server else "")
        store = Store(
            url,
            settings,
            prepare=server.ensure if server else None,
            recover=server.recover if server else None,
        )
        celery = OffloadCelery(
            app,
            settings,
            url=url,
            store=store,
            files=FileStore(settings.files_url, settings.max_file),
        )
        control = Control(celery)
        access = Access(settings, _signing_key(app, settings))
        celery.verbs = _Verbs(control, access)
        celery.origin = lambda: _origin(access)
        app.extensions[KEY] = OffloadState(settings, celery, control, access, server)
        for declared in self._declared.values():
            celery.task(declared.fun, **declared.options)
        self._register_views(app, celery)
        app.register_blueprint(
            make_blueprint(settings, control, access, debug_hint=lambda: app.debug)
        )
        register_error_handlers(app)
        app.after_request(access.after_request)
        app.jinja_env.globals.update(
            offload_jobs=lambda limit=20: jobs_list(control, access, limit),
            offload_job=lambda job: job_part(control, access, job),
            offload_scripts=scripts,
        )

    # -- the app at hand

    @property
    def state(self) -> OffloadState:
        """What belongs to the current app, or to the only one.

        :raises NoAppError: There is no app context, and the extension was not made for one app.
        """
        app: Flask | None = current_app._get_current_object() if current_app else None  # type: ignore[attr-defined]
        if app is None or KEY not in app.extensions:
            app = self._app() if self._app else None
        if app is None:
            raise NoAppError(
                "Offload() serves several apps here, and no app context says which is meant. Use "
                "create_app().extensions['offload'].celery, or 'with app.app_context():'."
            )
        return t.cast("OffloadState", app.extensions[KEY])

    @property
    def celery(self) -> OffloadCelery:
        """The Celery app of the current app."""
        return self.state.celery

    @property
    def control(self) -> Control:
        """The verbs: list, cancel, retry, … They do not ask who may."""
        return self.state.control

    def get(self, job_id: str) -> Job:
        """The job with an id.

        :raises JobNotFound: There is none, or its record has expired.
        """
        if self.state.celery.store.state(job_id) is None:
            raise JobNotFound(job_id)
        return self.state.celery.AsyncResult(job_id)

    def user_loader(self, loader: t.Callable[[], str | None]) -> t.Callable[[], str | None]:
        """Register the function that gives the id of the user of the current request.

        Without one, Flask-Login is asked, where the app uses it.
        """
        self.state.access.user_loader = loader
        return loader

    # -- tasks

    @t.overload
    def task(self, fun: t.Callable[P, t.Coroutine[t.Any, t.Any, R]], /) -> OffloadedTask[P, R]: ...
    @t.overload
    def task(self, fun: t.Callable[P, R], /) -> OffloadedTask[P, R]: ...
    @t.overload
    def task(
        self,
        *,
        title: str | None = None,
        sensitive: t.Iterable[str] = (),
        queue: str | None = None,
        priority: int | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        repeatable: bool = False,
        **celery: t.Any,
    ) -> t.Callable[[t.Callable[P, R]], OffloadedTask[P, R]]: ...

    def task(self, fun: t.Any = None, /, **options: t.Any) -> t.Any:  # type: ignore[misc]
        """Make a function a task. ``async def`` works too.

        :param title: What the person waiting reads; ``{names}`` of arguments are filled in.
        :param sensitive: Names of arguments that are never shown.
        :param queue: Name of the queue.
        :param priority: 0 to 9; what it means is the broker's matter.
        :param timeout: Seconds after which the job is stopped.
        :param retries: How often it is tried again after an error.
        :param repeatable: Whether the person waiting may run it again from its page.
        :param celery: Any option of Celery's own decorator.
        """
        options = task_options(**options)

        def decorate(fun: t.Callable[..., t.Any]) -> t.Any:
            app = self._app() if self._app else None
            if app is not None:
                return app.extensions[KEY].celery.task(fun, **options)
            return self._declare(fun, options)

        return decorate if fun is None else decorate(fun)

    def _declare(self, fun: t.Callable[..., t.Any], options: dict[str, t.Any]) -> t.Any:
        name = options.setdefault("name", f"{fun.__module__}.{fun.__name__}")
        if name in self._declared:
            raise ConfigError(
                f"The task {name} is declared twice. Inside an app factory, make it a task of that "
                "app: app.extensions['offload'].celery.task, or Offload(app).task."
            )
        self._declared[name] = _Declared(fun, options)
        # Which app it belongs to is known when it is used.
        return LocalProxy(lambda: self.celery.tasks[name])


_NOWHERE = Origin()


def _origin(access: Access) -> Origin:
    if not has_request_context():
        return _NOWHERE
    return Origin(
        owners=access.identify(),
        locale=locale(),
        request_id=request.headers.get("X-Request-ID", "")[:128],
        first=access.first_contact(),
    )


def _signing_key(app: Flask, settings: Settings) -> t.Callable[[], str | bytes]:
    if not app.secret_key and settings.url is not None:
        raise ConfigError(
            "SECRET_KEY is not set. It signs the cookie that shows people their own jobs only; "
            "set it before Offload(app)."
        )
    kept = functools.cache(lambda: _kept_key(settings.directory))
    return lambda: app.secret_key or kept()


def _kept_key(directory: Path) -> str:
    """A key of this app's own, beside its embedded server; all its processes must read the same."""
    path = directory / "secret_key"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        return path.read_text("ascii")
    part = directory / f".secret_key.{secrets.token_hex(8)}"
    part.touch(mode=0o600)
    part.write_text(secrets.token_urlsafe(32), "ascii")
    # Of several first processes one wins, and nobody reads half a key.
    with suppress(FileExistsError):
        path.hardlink_to(part)
    part.unlink()
    return path.read_text("ascii")


def _check_prefix(app: Flask, prefix: str) -> None:
    for rule in app.url_map.iter_rules():
        if rule.rule == prefix or rule.rule.startswith(f"{prefix}/"):
            raise ConfigError(
                f"The app has a route {rule.rule} already. Set OFFLOAD_JOBS_PREFIX to another "
                "address for the job pages."
            )
