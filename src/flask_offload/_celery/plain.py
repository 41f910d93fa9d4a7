"""The engine under a Celery app that knows nothing of Flask, by its settings alone:

.. code-block:: python

    app.conf.broker_url = "redis://localhost:6379/0"
    app.conf.broker_transport = "flask_offload.transport:Transport"
    app.conf.result_backend = "flask_offload.backend:OffloadBackend+redis://localhost:6379/0"

Messages are jobs with a record, a lease and a fence, as in a Flask app. What takes a class of ours
in the worker is not there: attempts are not counted, and tasks have no ``current_job``. What the
backend tells is what Celery's would: records last as long as results do, by ``result_expires`` and
``result_failure_expires``; and results have no limit but the server's. Of the line's settings two
are options of the transport, ``namespace`` (which is one of the backend, too) and ``lease``.
"""

from __future__ import annotations

import dataclasses
import sys
import typing as t
from datetime import timedelta
from functools import cache
from pathlib import Path
from urllib.parse import quote, urlencode

from celery import signals
from celery._state import get_current_task

from .._config import Settings
from .._store import Store
from .engine import Engine
from .handover import not_to_start
from .message import ETA, Message
from .sentinel import sentinels_of

__all__ = ["PlainEngine", "engine_of", "store_of", "tell_eta"]

NAMESPACE = "celery"
#: Celery keeps results for ever that have no limit.
FOREVER = 100 * 365 * 86_400.0
#: The server refuses what is too large for it; Celery has no limit of its own.
UNLIMITED = sys.maxsize
DEFAULT_LEASE = 30.0

#: The property that tells one publish from another of the same task id.
PUBLISH = "offload_publish"


class PlainEngine(Engine):
    """The line, with what Celery's users expect of an id that is used again."""

    def enqueue(self, queue: str, message: Message) -> tuple[str, str]:
        """Put a message in line. Once the job of its id is over, another message is a new run."""
        properties = message["properties"]
        publish = str(properties.get("delivery_tag") or "")
        if publish:
            properties[PUBLISH] = publish
        outcome = super().enqueue(queue, message)
        if outcome[0] != "exists" or not publish:
            return outcome
        sender = get_current_task()
        job_id = (sender.request.id if sender else "") or ""
        if not self.store.reuse(outcome[1], publish, job_id):
            return outcome
        return super().enqueue(queue, message)


_engines: list[Engine] = []
_worker: dict[str, bool] = {"in_worker": False, "stopping": False}


@cache
def _settings(
    namespace: str, keep: tuple[float, float] | None = None, lease: float = DEFAULT_LEASE
) -> Settings:
    settings = Settings(
        directory=Path(),
        files_url="memory://",
        namespace=namespace,
        lease=lease,
        max_payload=UNLIMITED,
        max_result=UNLIMITED,
    )
    if keep is None:
        return settings
    succeeded, failed = keep
    retention = {"succeeded": succeeded, "failed": failed, "cancelled": succeeded}
    return dataclasses.replace(settings, retention=retention)


@cache
def _store(url: str, namespace: str, keep: tuple[float, float] | None = None) -> Store:
    return Store(_from_celery(url), _settings(namespace, keep))


@cache
def _engine(url: str, namespace: str, lease: float) -> Engine:
    settings = _settings(namespace, None, lease)
    engine = PlainEngine(Store(_from_celery(url), settings), settings)
    for name, value in _worker.items():
        setattr(engine, name, value)
    # No step of a worker does it here.
    engine.tidy = lambda: engine.store.prune_for(1)
    _engines.append(engine)
    signals.task_prerun.connect(tell_eta, weak=False, dispatch_uid="offload_eta")
    return engine


def engine_of(connection: t.Any) -> Engine:
    """The engine for a kombu connection that came with none."""
    options = connection.transport_options
    namespace = str(options.get("namespace") or NAMESPACE)
    return _engine(_url_of(connection), namespace, float(options.get("lease") or DEFAULT_LEASE))


def store_of(url: str, conf: t.Any) -> tuple[Store, Settings]:
    """The records and the limits, for a backend that came with none."""
    options = conf.result_backend_transport_options or {}
    namespace = str(options.get("namespace") or NAMESPACE)
    succeeded, failed = conf.result_expires, conf.result_failure_expires
    keep = _seconds(succeeded), _seconds(succeeded if failed is None else failed)
    return _store(url, namespace, keep), _settings(namespace, keep)


def _seconds(expires: timedelta | float | None) -> float:
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires
    return float(seconds or FOREVER)


def _url_of(connection: t.Any) -> str:
    host = connection.hostname or "localhost"
    if "://" in host:
        return _from_celery(host)
    user = quote(connection.userid or "", safe="")
    password = quote(connection.password or "", safe="")
    login = f"{user}:{password}@" if user or password else ""
    scheme = "rediss" if connection.ssl else "redis"
    path = str(connection.virtual_host or "0").strip("/") or "0"
    if sentinels := sentinels_of(connection):
        options = connection.transport_options
        known = {"master": options["master_name"], "ssl": "yes" if connection.ssl else "no"}
        secrets = options.get("sentinel_kwargs") or {}
        known |= {f"sentinel_{k}": secrets[k] for k in ("username", "password") if k in secrets}
        if isinstance(connection.ssl, dict):
            known |= {k: v for k, v in connection.ssl.items() if isinstance(v, str)}
        hosts = ",".join(f"{name}:{port}" for name, port in sentinels)
        return f"sentinel://{login}{hosts}/{path}?{urlencode(known)}"
    return f"{scheme}://{login}{host}:{connection.port or 6379}/{path}"


def _from_celery(url: str) -> str:
    scheme, _, rest = url.partition("://")
    if scheme == "socket":
        path, _, query = rest.partition("?")
        return f"unix:///{path.lstrip('/')}?{query.replace('virtual_host=', 'db=')}"
    return url


def _set(name: str) -> None:
    _worker[name] = True
    for engine in _engines:
        setattr(engine, name, True)


def tell_eta(task: t.Any, **_: t.Any) -> None:
    # The worker must not see it: it would wait for it, by its own clock.
    if task.request.eta is None:
        task.request.eta = task.request.get(ETA)


@signals.worker_init.connect(weak=False)
def _started(**_: t.Any) -> None:
    # Only now: it loads Celery's worker, for which a web process has no use.
    from . import inspection  # noqa: F401  # pyright: ignore[reportUnusedImport]

    _set("in_worker")


@signals.worker_ready.connect(weak=False)
def _ready(sender: t.Any, **_: t.Any) -> None:
    engine = getattr(sender.task_consumer.channel, "engine", None)
    if engine in _engines:
        # Before Celery forgets what it has not started, because its connection is lost.
        forget = sender.on_close

        def on_close() -> None:
            engine.abandon(not_to_start())
            forget()

        sender.on_close = on_close


@signals.worker_shutting_down.connect(weak=False)
def _stopping(**_: t.Any) -> None:
    _set("stopping")
