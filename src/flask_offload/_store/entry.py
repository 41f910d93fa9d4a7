"""The way in: jobs are accepted, by us or by another broker."""

from __future__ import annotations

import time
import typing as t

from .._jobs import JobState
from . import scripts
from .base import Base
from .connection import Deadline, StoreUnavailable
from .data import Accepted, NewJob

__all__ = ["Entry"]

#: Seconds after which the server is asked for its time again.
CLOCK_CHECK = 60.0


class Entry(Base):
    """From asked for to accepted."""

    def enqueue(
        self,
        job: NewJob,
        *,
        state: JobState,
        confirm_within: float = 0,
        envelope: str = "",
        deadline: Deadline,
    ) -> tuple[str, str]:
        """Accept a job: write its record and, with ``envelope``, put it in line, in one step.

        :param confirm_within: Seconds after which an enqueue without :meth:`confirm` is void;
            for a message that another broker carries.
        :param envelope: The whole message.
        :return: What happened (``created``, ``again`` for a retry, ``exists`` and ``unique`` if
            nothing was done, ``cancelled``), and the id of the job there is.
        """
        return self.enqueue_one(Accepted.of(job, state, envelope, confirm_within), deadline)

    def enqueue_all(self, jobs: t.Sequence[Accepted], deadline: Deadline) -> list[tuple[str, str]]:
        """Accept several jobs in one step; see :meth:`enqueue`.

        After a :exc:`StoreUnavailable` that was ``sent``, the same call again finds those that
        were accepted, and adds the rest.
        """
        if len(jobs) == 1:
            return [self.enqueue_one(jobs[0], deadline)]
        if not all(job.is_usual for job in jobs):
            return self._enqueue_any(jobs, deadline)
        args: list[t.Any] = [self.keys.prefix, 0.0]
        for job in jobs:
            record = job.record()
            args += (len(record), *record)
        answers = self._enqueue("enqueue_many", self._keys_of(jobs), args, 1, deadline)
        # There is a job of that id: nothing new, or one whose place it may take.
        known = [job for job, answer in zip(jobs, answers, strict=True) if not answer]
        rest = iter(self._enqueue_any(known, deadline) if known else ())
        return [
            ("created", job.id) if answer else next(rest)
            for job, answer in zip(jobs, answers, strict=True)
        ]

    def enqueue_one(self, job: Accepted, deadline: Deadline) -> tuple[str, str]:
        """Accept a job; see :meth:`enqueue`."""
        if not job.is_usual:
            return self._enqueue_any([job], deadline)[0]
        args = [self.keys.prefix, 0.0, *job.record()]
        if self._enqueue("enqueue_one", [self.keys.job(job.id)], args, 1, deadline):
            return "created", job.id
        return self._enqueue_any([job], deadline)[0]

    def _enqueue_any(self, jobs: t.Sequence[Accepted], deadline: Deadline) -> list[tuple[str, str]]:
        # What is over is no matter here: it needs no retention.
        args: list[t.Any] = [self.keys.prefix, "", "", 0.0]
        for job in jobs:
            args += job.args()
        answers = self._enqueue("enqueue", self._keys_of(jobs), args, 3, deadline)
        return [
            (answer[0], answer[1] if len(answer) > 1 else job.id)
            for answer, job in zip(answers, jobs, strict=True)
        ]

    def _keys_of(self, jobs: t.Sequence[Accepted]) -> list[str]:
        return [self.keys.job(job.id) for job in jobs]

    def _enqueue(
        self,
        script: str,
        keys: list[str],
        args: list[t.Any],
        at: int,
        deadline: Deadline,
    ) -> t.Any:
        """Run a script that accepts jobs, with the end of the deadline as its argument ``at``."""
        while True:
            args[at] = self._server_time(deadline) + deadline.left()
            answers = self._call(lambda link: scripts.run(link, script, keys, args), deadline)
            if answers != "late":
                return answers
            self._clock = None  # it was set meanwhile, unless the server hung
            if not deadline.left():
                raise StoreUnavailable("The server of OFFLOAD_URL took too long.", sent=False)

    def _server_time(self, deadline: Deadline) -> float:
        """The time by the server's clock, which is asked for once in a while."""
        now = time.monotonic()
        if self._clock is None or now - self._clock[1] > CLOCK_CHECK:
            seconds, microseconds = self.call("TIME", deadline=deadline)
            self._clock = (int(seconds) + int(microseconds) / 1e6, time.monotonic())
        return self._clock[0] + time.monotonic() - self._clock[1]

    def confirm(self, job_id: str, deadline: Deadline) -> bool:
        """Note that the broker has the message; false if that came too late."""
        return bool(self._script("confirm", job_id, deadline=deadline))

    def refuse(self, job_id: str, reason: str, deadline: Deadline | None = None) -> None:
        """Take back an enqueue whose publish failed."""
        self._script("refuse", job_id, reason, deadline=deadline)
