"""What ``enqueue.py`` makes: a Celery app on either transport, and a free port."""

from __future__ import annotations

import socket

from celery import Celery

__all__ = ["app_for", "free_port"]


def app_for(side: str, url: str) -> Celery:
    app = Celery("bench")
    backend = {"stock": url, "ours": f"flask_offload.backend:OffloadBackend+{url}"}
    if side == "ours":
        app.conf.broker_transport = "flask_offload.transport:Transport"
    app.conf.update(
        broker_url=url,
        result_backend=backend[side],
        task_acks_late=True,
        worker_prefetch_multiplier=4,
        broker_connection_retry_on_startup=True,
    )
    app.task(name="nothing", shared=False)(nothing)
    return app


def nothing() -> None:
    pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
