"""The Celery app of a Flask app."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import functools
import inspect
import typing as t
from dataclasses import dataclass

from celery import Celery
from celery.app import base
from celery.app.defaults import DEFAULTS
from celery.exceptions import TaskRevokedError
from celery.states import REVOKED

from .._jobs import JobRecord
from .._store import Deadline, Feed, FileStore, Store
from ..exceptions import ConfigError
from . import context, publish, spawned, tracing, worker
from .engine import Engine
from .task import OffloadTask
from .urls import backend_url, broker_options, is_redis

if t.TYPE_CHECKING:
    from flask import Flask
    from flask.cli import ScriptInfo

    from .._config import Settings
    from .job import Job, Verbs

__all__ = ["OffloadCelery", "Origin"]


@dataclass(frozen=True, slots=True)
class Origin:
    """From where a job was enqueued; it travels with the job.

    :param owners: Who may see the job.
    :param first: Whether the browser among them is known from this request on only.
    """

    owners: tuple[str, ...] = ()
    locale: str = ""
    request_id: str = ""
    first: bool = False


class OffloadCelery(Celery):  # type: ignore[misc]
    """An unmodified Celery engine whose every message is a job with a record.

    :param flask_app: Tasks run in its app context.
    """

    # What _extension hands down, because the layers below it may not reach up.
    origin: t.Callable[[], Origin] = staticmethod(Origin)
    verbs: Verbs
    #: Name of this worker on the records; set when one starts.
    worker_name: str = ""
    #: Of Flask's, which made the app; set when that command starts a worker.
    command: ScriptInfo | None = None

    def __init__(
        self, flask_app: Flask, settings: Settings, *, url: str, store: Store, files: FileStore
    ) -> None:
        self.flask_app = flask_app
        self.settings = settings
        self.store = store
        self.files = files
        self.feed = Feed(store)
        #: The line of jobs; ``None`` where another server carries the messages.
        self.engine = Engine(store, settings) if _has_line(settings, url) else None
        super().__init__(
            flask_app.import_name,
            # Celery's current app is a global of the thread; ours is bound by the app context,
            # so that several apps in a process do not take each other's shared tasks.
            set_as_current=False,
            task_cls=OffloadTask,
            log="flask_offload._celery.stdout:LineLogging",
        )
        self.conf.update(_configuration(settings, url))
        worker.install(self)
        context.follow(flask_app, self)

    def __reduce__(self) -> t.Any:
        return spawned.load, (spawned.place_of(self), self.worker_name)

    # -- results and messages

    @functools.cached_property
    def AsyncResult(self) -> type[Job]:  # noqa: N802
        return t.cast("type[Job]", self.subclass_with_self("flask_offload._celery.job:Job"))

    def send_task(
        self, name: str, args: t.Any = None, kwargs: t.Any = None, **options: t.Any
    ) -> t.Any:
        """Write the record, then publish; see :meth:`celery.Celery.send_task`.

        :raises EnqueueError: The job was not accepted within ``OFFLOAD_PUBLISH_TIMEOUT``, and
            will not run.
        """
        return publish.send(self, super().send_task, name, args, kwargs, options)

    def connection_for_read(self, url: str | None = None, **kwargs: t.Any) -> t.Any:
        kwargs["transport_options"] = {**self._line(), **(kwargs.get("transport_options") or {})}
        return super().connection_for_read(url, **kwargs)

    def connection_for_write(self, url: str | None = None, **kwargs: t.Any) -> t.Any:
        timeout = self.settings.publish_timeout
        if is_redis(self.conf.broker_url or ""):
            bound: dict[str, t.Any] = {"publish_timeout": timeout}
        else:
            bound = {"read_timeout": timeout, "write_timeout": timeout}
        # kombu's own way to a broker that is away: a second address at once, and no pauses.
        bound |= {"max_retries": 1, "interval_start": 0, "connect_retries_timeout": timeout}
        bound |= self._line()
        kwargs["transport_options"] = {**bound, **(kwargs.get("transport_options") or {})}
        kwargs.setdefault("connect_timeout", timeout)
        return super().connection_for_write(url, **kwargs)

    def _line(self) -> dict[str, t.Any]:
        return {} if self.engine is None else {"engine": self.engine}

    def start(self, argv: t.Sequence[str] | None = None) -> int:
        """Run a command of Celery's; its exit code, which Celery's own method drops.

        :raises SystemExit: A command that fails may raise it itself.
        """
        from celery.bin.celery import celery as command  # it loads all of them

        command.params[0].default = self
        try:
            code = command.main(None if argv is None else list(argv), standalone_mode=False)
        finally:
            command.params[0].default = None
        return code if isinstance(code, int) else 0

    def worker_main(self, argv: t.Sequence[str] | None = None) -> int:
        """Run a worker to its end; its exit code. See :meth:`celery.Celery.worker_main`."""
        return self.start(argv)

    # -- tasks

    def task(self, *args: t.Any, **options: t.Any) -> t.Any:
        """Celery's decorator; the task is this app's alone, unless ``shared=True`` is given.

        Celery adds a task of one app to all others, which are finalized later: of ten apps of one
        factory, each would get the tasks of another.
        """
        if base.USING_EXECV:
            # In a process that was not forked, Celery would make it every app's.
            options.setdefault("lazy", False)
        return super().task(*args, **{"shared": False, **options})

    def register_task(self, task: t.Any, **options: t.Any) -> t.Any:
        """Celery's way to add an instance of a task class, which need not be one of ours."""
        task = super().register_task(task, **options)
        if not isinstance(task, OffloadTask):
            tracing.look_after(task)
        return task

    def _task_from_fun(
        self,
        fun: t.Callable[..., t.Any],
        name: str | None = None,
        base: t.Any = None,
        **options: t.Any,
    ) -> t.Any:
        if base is not None and not issubclass(base, OffloadTask):
            # A base class of the user's keeps its say; ours comes first.
            base = type(base.__name__, (OffloadTask, base), {"abstract": True})
        if inspect.iscoroutinefunction(fun):
            name = name or self.gen_task_name(fun.__name__, fun.__module__)
            fun = _synchronous(fun)
        return super()._task_from_fun(fun, name=name, base=base, **options)

    # -- what the verbs of control need

    def revoked_result(self, job_id: str) -> str:
        """What Celery stores for a revoked task."""
        backend = self.backend
        error = TaskRevokedError("cancelled")
        meta = backend._get_result_meta(
            result=backend.encode_result(error, REVOKED),
            state=REVOKED,
            traceback=None,
            request=None,
        )
        return t.cast("str", backend.encode({**meta, "task_id": job_id}))

    def stop_running(self, job_id: str) -> None:
        """Tell the worker that runs a job to stop it, as far as its pool can.

        The wish is on the record already, where ``current_job`` and a restarted worker find it;
        this only makes it quicker in a prefork pool, so that a broker which is away is no error.
        """
        with contextlib.suppress(Exception):
            with self.connection_for_write() as connection:
                self.control.revoke(job_id, terminate=True, connection=connection)

    def enqueue_again(
        self, record: JobRecord, payload: dict[str, t.Any], new_id: str | None = None
    ) -> Job:
        """Enqueue the input of a job again, as a new job of the same owner."""
        origin = Origin(record.owners, record.locale, record.request_id)
        options = {"queue": record.queue} if record.queue else {}
        options |= payload.get("options", {})
        with publish.as_origin(origin):
            return t.cast(
                "Job",
                self.send_task(
                    record.task,
                    payload["args"],
                    payload["kwargs"],
                    **{**options, "task_id": new_id},
                ),
            )

    def deadline(self) -> Deadline:
        """The end of the time that an enqueue which begins now may take."""
        return Deadline.after(self.settings.publish_timeout)


@functools.cache  # Celery tells two tasks of one name apart by the identity of the function.
def _synchronous(fun: t.Callable[..., t.Coroutine[t.Any, t.Any, t.Any]]) -> t.Callable[..., t.Any]:
    @functools.wraps(fun)
    def run(*args: t.Any, **kwargs: t.Any) -> t.Any:
        return asyncio.run(fun(*args, **kwargs))

    return run


def _has_line(settings: Settings, url: str) -> bool:
    # Record and message change in one step, which takes one server.
    return settings.broker_url in (None, url)


def _configuration(settings: Settings, url: str) -> dict[str, t.Any]:
    given = dict(settings.celery)
    for key in given:
        if key not in DEFAULTS:
            near = difflib.get_close_matches(key, DEFAULTS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else " Keys are lower-case."
            raise ConfigError(f"CELERY has an unknown key {key!r}.{hint}")
    for key in ("accept_content", "result_accept_content"):
        if set(given.get(key) or ()) - {"json", "application/json"}:
            raise ConfigError(f"CELERY[{key!r}] may hold 'json' only: other formats run code.")
    for key in ("task_serializer", "result_serializer", "event_serializer"):
        if given.get(key, "json") != "json":
            raise ConfigError(f"CELERY[{key!r}] must be 'json': other formats run code.")
    broker = broker_options(
        settings.broker_url or url, settings.namespace, line=_has_line(settings, url)
    )
    transport = {
        **broker.pop("broker_transport_options"),
        **(given.pop("broker_transport_options", None) or {}),
    }
    defaults = {
        "accept_content": ["json"],
        "broker_connection_retry_on_startup": True,
        "broker_connection_timeout": settings.publish_timeout,
        "broker_pool_acquire_timeout": settings.publish_timeout,
        "result_backend_always_retry": True,
        "result_expires": int(settings.retain("succeeded")),
        # What a chord has counted must outlive the leases of its parts, and the claim of a worker
        # that died over the callback, however short results are kept.
        "result_chord_expires": max(int(settings.retain("succeeded")), 86_400),
        # A message is kept by the broker until its job is done, and given to another worker when
        # the one that ran it dies.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "worker_consumer": "flask_offload._celery.consumer:OffloadConsumer",
    }
    return {
        **defaults,
        **broker,
        "result_backend": backend_url(url),
        **given,
        "broker_transport_options": transport,
    }
