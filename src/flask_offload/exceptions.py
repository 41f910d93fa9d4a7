"""Errors of Flask-Offload.

Each message names the setting, argument or command that mends the fault.
"""

from __future__ import annotations

__all__ = [
    "BackgroundError",
    "ConfigError",
    "EnqueueError",
    "JobCancelled",
    "JobNotFound",
    "LostAfterCommit",
    "NoAppError",
    "NotSerializable",
    "OffloadError",
    "PayloadTooLarge",
    "ResultTooLarge",
    "ServerError",
    "UserError",
]


class OffloadError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(OffloadError):
    """A setting is unknown, malformed or contradicts another one."""


class NoAppError(OffloadError, RuntimeError):
    """The extension was used without the Flask app that it needs."""


class ServerError(OffloadError):
    """The embedded server could not be started or reached."""


class EnqueueError(OffloadError):
    """The job was not accepted, and it will not run.

    Raised by ``.delay()`` within ``OFFLOAD_PUBLISH_TIMEOUT`` seconds. Left unhandled in a view,
    it becomes HTTP 503 with ``Retry-After``.

    :param retry_after: Seconds after which a new attempt makes sense.
    """

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LostAfterCommit(EnqueueError):
    """A database transaction was committed, but jobs that waited for that were not accepted, and
    will not run.

    Raised by the commit, which stands; the session is ready for the next transaction. Each job is
    logged at ``ERROR`` with its task and arguments. Left unhandled in a view, it becomes HTTP 500,
    since a second attempt would save everything twice.

    :param job_ids: The jobs.
    """

    def __init__(self, message: str, *, job_ids: list[str]) -> None:
        super().__init__(message)
        self.job_ids = job_ids


class PayloadTooLarge(OffloadError, ValueError):
    """The arguments of a job are larger than ``OFFLOAD_MAX_PAYLOAD``, or a file of a job is
    larger than ``OFFLOAD_MAX_FILE``."""


class NotSerializable(OffloadError, TypeError):
    """An argument of a job is not JSON."""


class ResultTooLarge(OffloadError, ValueError):
    """The result of a job is larger than ``OFFLOAD_MAX_RESULT``."""


class BackgroundError(OffloadError):
    """A view of ``@offload.background`` does what only a view in a request can do."""


class JobNotFound(OffloadError, LookupError):
    """No job has this id: it never existed, or its record has expired.

    :param job_id: The id that was asked for.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(f"No job has the id {job_id[:64]!r}. It never existed, or it has expired.")
        self.job_id = job_id


class JobCancelled(BaseException):
    """Raised inside a task, by a call on :data:`~flask_offload.current_job`, once somebody has
    cancelled the job.

    A :exc:`BaseException`, as :exc:`asyncio.CancelledError` is, so that the ``except Exception``
    of a task does not swallow it.
    """


class UserError(Exception):
    """Raise this in a task to fail the job with one sentence for the person waiting.

    .. code-block:: python

        raise UserError("The month has no data yet.")
    """
