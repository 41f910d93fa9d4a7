"""The only place that knows Celery."""

from __future__ import annotations

from . import tracing as tracing
from .app import OffloadCelery, Origin
from .context import follow
from .job import Job, Verbs
from .task import OffloadTask, limits

__all__ = ["Job", "OffloadCelery", "OffloadTask", "Origin", "Verbs", "follow", "limits"]
