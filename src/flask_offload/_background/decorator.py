"""``@offload.background`` and ``@offload.rerun``."""

from __future__ import annotations

import functools
import typing as t
import weakref

from flask import Flask, has_request_context

from .._current import running_job
from .._tasks import task_options
from ..exceptions import BackgroundError, ConfigError
from .run import FINAL, RERUN
from .view import MARK, View

if t.TYPE_CHECKING:
    from .._celery import OffloadCelery

__all__ = ["BackgroundViews"]

F = t.TypeVar("F", bound=t.Callable[..., t.Any])


class BackgroundViews:
    """The part of :class:`.Offload` that is about views, for all apps of an extension."""

    def __init__(self) -> None:
        self._views: dict[tuple[str, str], View] = {}
        # The names of the views that each app has; a factory may declare its own after init_app.
        self._serves: weakref.WeakKeyDictionary[Flask, set[tuple[str, str]]]
        self._serves = weakref.WeakKeyDictionary()

    @t.overload
    def background(self, view: F, /) -> F: ...
    @t.overload
    def background(
        self,
        *,
        title: str | None = None,
        sensitive: t.Iterable[str] = (),
        queue: str | None = None,
        priority: int | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        unique: bool = False,
        **celery: t.Any,
    ) -> t.Callable[[F], F]: ...

    def background(self, view: t.Any = None, /, **options: t.Any) -> t.Any:  # type: ignore[misc]
        """Run a view, unchanged, in a worker.

        .. code-block:: python

            @app.post("/export")
            @login_required
            @offload.background
            def export():
                return render_template("export.html", rows=slow_query(request.form["q"]))

        Directly above ``def``. The decorators above it run in the request. A browser is led to the
        page of the job, and from there to the response; a client that prefers JSON, or sends
        ``Prefer: respond-async``, gets ``202 Accepted``.

        :param title: What the person waiting reads; ``{names}`` in the URL are filled in.
        :param sensitive: Names of arguments in the URL that are never shown.
        :param queue: Name of the queue.
        :param priority: 0 to 9; what it means is the broker's matter.
        :param timeout: Seconds after which the job is stopped.
        :param retries: How often it is tried again after an exception or a status of 500 or above.
        :param unique: While a job is not over, the same request of the same person (address, form,
            files) leads to it and starts no other, as after a double-click. On GET it is always so.
        :param celery: Any option of Celery's own decorator.
        """
        unique = options.pop("unique", False)
        task_options(sensitive=options.get("sensitive", ()))  # which refuses a text
        # What a person sent is never shown: it is one argument, and that one is hidden.
        sensitive = ("http_request", *options.pop("sensitive", ()))
        options.setdefault("dont_autoretry_for", FINAL)
        retries = options.pop("retries", None)
        if retries is None:
            retries = options.get("max_retries", 0) if "autoretry_for" in options else 0
        options = task_options(sensitive=sensitive, retries=retries, **options)

        def decorate(function: F) -> F:
            declared = View(function, options, retries, unique)
            self._declare_view(declared)

            @functools.wraps(function)
            def view(*args: t.Any, **kwargs: t.Any) -> t.Any:
                if not has_request_context() or running_job() is not None:
                    # As a plain function: in a test, or in another view that runs in a worker.
                    return function(*args, **kwargs)
                if args:
                    raise BackgroundError(
                        f"@offload.background cannot be above {function.__qualname__}, which is a "
                        "method. Put it on the class: decorators = [offload.background]."
                    )
                return declared(kwargs)

            setattr(view, MARK, declared)
            return t.cast("F", view)

        return decorate if view is None else decorate(view)

    @staticmethod
    def rerun(hook: F) -> F:
        """Run a ``before_request`` hook again in the worker, for background views.

        .. code-block:: python

            @app.before_request
            @offload.rerun
            def load_user():
                g.user = db.session.get(User, session["user_id"])

        All others ran in the request, before the job was enqueued.
        """
        setattr(hook, RERUN, True)
        return hook

    def _declare_view(self, view: View) -> None:
        if view.path in self._views and not view.is_local:
            raise ConfigError(
                f"The background view {'.'.join(view.path)} is declared twice. Give one of the two "
                "functions another name."
            )
        lacking = [app for app, names in self._serves.items() if view.path not in names]
        for app in lacking:
            self._serves[app].add(view.path)
            view.register(app.extensions["offload"].celery)
        # What a factory declares is for the app that it makes, now or in a moment. To keep it for
        # the next one would keep its app, too.
        if not (view.is_local and lacking):
            self._views[view.path] = view

    def _register_views(self, app: Flask, celery: OffloadCelery) -> None:
        """Give an app the views that were declared before it was."""
        self._serves[app] = set(self._views)
        for view in self._views.values():
            view.register(celery)
        self._views = {path: view for path, view in self._views.items() if not view.is_local}
