"""Flask-Offload moves slow work out of a Flask request, and never loses sight of it."""

from __future__ import annotations

from ._celery import Job
from ._current import current_job
from ._extension import Offload
from ._jobs import JobRecord, JobState, LogLine, Progress
from .exceptions import (
    BackgroundError,
    ConfigError,
    EnqueueError,
    JobCancelled,
    JobNotFound,
    LostAfterCommit,
    NoAppError,
    NotSerializable,
    OffloadError,
    PayloadTooLarge,
    ResultTooLarge,
    ServerError,
    UserError,
)

__all__ = [
    "BackgroundError",
    "ConfigError",
    "EnqueueError",
    "Job",
    "JobCancelled",
    "JobNotFound",
    "JobRecord",
    "JobState",
    "LogLine",
    "LostAfterCommit",
    "NoAppError",
    "NotSerializable",
    "Offload",
    "OffloadError",
    "PayloadTooLarge",
    "Progress",
    "ResultTooLarge",
    "ServerError",
    "UserError",
    "current_job",
]
