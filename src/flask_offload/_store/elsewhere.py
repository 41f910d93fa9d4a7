"""Jobs whose messages another broker carries, while they wait here: until they are due, or until a
worker knows their task."""

from __future__ import annotations

from .base import Base
from .data import Delivery, NewJob

__all__ = ["Elsewhere"]


class Elsewhere(Base):
    """From here to the broker, and back."""

    def due(self, count: int, claim: float) -> tuple[float | None, list[Delivery]]:
        """Take up to ``count`` messages that are due, to publish them.

        :param claim: Seconds until others may take the same ones, unless :meth:`published` said
            what became of them.
        :return: The seconds until there is more, ``None`` if nothing waits; and the messages.
        """
        wait, found = self._script("due", "", count, claim)
        taken = [Delivery(job_id, int(fence), queue, raw) for job_id, fence, queue, raw in found]
        return float(wait) if wait else None, taken

    def published(self, job_id: str, fence: int, *, again: float | None = None) -> bool:
        """Note that the broker has a message.

        :param again: It does not, or nobody knows; it is due again after so many seconds.
        :return: False if others have taken it since.
        """
        later = "" if again is None else again
        return bool(self._script("published", job_id, fence, later))

    def park(
        self, job: NewJob, *, fence: int, envelope: str, delay: float, why: str, limit: float
    ) -> str:
        """Keep the message of a job until it is due again.

        :param fence: The token that it came with; 0 if it carried none.
        :param delay: Seconds until it is due.
        :param why: What it waits for, and ``limit`` the seconds for which it may.
        :return: ``parked``; ``drop`` if the message is a leftover; ``over`` if it has waited for
            too long.
        """
        attempt = (fence, job.nesting, job.retries)
        return str(
            self._script("park", job.id, *attempt, job.fields(), envelope, delay, why, limit)
        )

    def entomb(self, job: NewJob, raw: str, error: str, error_type: str, result: str) -> bool:
        """Make a job dead whose message cannot be read, and keep the message.

        :param result: Celery's result of a failed task, encoded.
        """
        keys = [self.keys.result(job.id)]
        args = (job.fields(), raw, error, error_type, result)
        return bool(self._script("entomb", job.id, *args, keys=keys))
