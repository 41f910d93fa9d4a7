"""A Celery app without Flask on our transport and backend: the stock one with other settings."""

from __future__ import annotations

from . import URL
from .stock import app, delay, later

__all__ = ["app", "delay", "later"]

app.conf.update(
    broker_transport="flask_offload.transport:Transport",
    result_backend=f"flask_offload.backend:OffloadBackend+{URL}",
)
