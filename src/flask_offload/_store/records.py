"""The transitions of a record that a worker, or whoever watches it, makes."""

from __future__ import annotations

import json
import time
import typing as t

from .._jobs import JobState, Progress
from ..exceptions import JobNotFound
from . import scripts
from .base import Base
from .data import Finished, NewJob, Started

__all__ = ["Records"]

LINE_LIMIT = 2_000
#: Most records that are forgotten in one step: the server does nothing else meanwhile.
PRUNE = 200


class Records(Base):
    """From started to over."""

    def start(
        self, job: NewJob, *, worker: str, max_deliveries: int, fence: int = 0, ran: float = 0
    ) -> Started:
        """Ask whether a worker may run the attempt ``job``, and note that it does.

        :param fence: The token of the delivery; 0 on brokers that have none.
        :param ran: Seconds that it has been running, if it did not ask before.
        """
        answer = self._script(
            "start",
            job.id,
            worker,
            job.nesting,
            job.retries,
            max_deliveries,
            job.fields(),
            fence,
            self._lease,
            ran,
            keys=[self.keys.result(job.id)],
        )
        if answer[0] == "run":
            return Started("run", origin=tuple(answer[1:]))
        return Started(*answer)

    def finish(
        self,
        job_id: str,
        state: str,
        result: str = "",
        fields: dict[str, str] | None = None,
        *,
        attempt: tuple[int, int] = (0, 0),
        fence: int = 0,
        ran: float | None = None,
    ) -> int:
        """Write result and state at once; see :class:`Finished`.

        :return: 1; 0 if the job was over, or has gone on to a newer attempt; -1 if its lease is
            lost, so that another worker runs it or will.
        """
        done = Finished(job_id, state, result, fields or {}, attempt, fence, ran)
        return self.finish_all([done])[0]

    def finish_all(self, jobs: t.Sequence[Finished]) -> list[int]:
        """Finish several jobs in one step; see :meth:`finish`."""
        return t.cast("list[int]", self._script("finish", "", *_ends(jobs)))

    def finish_command(self, jobs: t.Sequence[Finished]) -> tuple[t.Any, ...]:
        """What :meth:`finish_all` sends to a server that knows the script."""
        return scripts.command("finish", [self.keys.job("")], (*self._common(""), *_ends(jobs)))

    def requeue(
        self, job_id: str, attempt: tuple[int, int] = (0, 0), *, forgive: bool = False
    ) -> bool:
        """Note that the message of a running job went back to the broker.

        :param forgive: The start does not count against the delivery limit.
        """
        return bool(self._script("requeue", job_id, *attempt, int(forgive)))

    def cancel_requested(self, job_id: str) -> bool:
        """Whether a running job is to be stopped."""
        return bool(self.call("HEXISTS", self.keys.job(job_id), "cancel_requested"))

    def cancel(self, job_id: str, by: str, result: str) -> tuple[JobState, bool]:
        """Cancel a job.

        :param result: Celery's result of a revoked task, encoded.
        :return: The state before, and whether the job runs and must be stopped there.
        :raises JobNotFound: There is no such job.
        """
        answer = self._script("cancel", job_id, by, result, keys=[self.keys.result(job_id)])
        if not answer:
            raise JobNotFound(job_id)
        return JobState(answer[0]), bool(answer[1])

    def progress(
        self,
        job_id: str,
        progress: Progress | None,
        lines: t.Sequence[tuple[float, str]] = (),
        *,
        fence: int = 0,
    ) -> int:
        """Note how far a running job is, and what it wrote.

        :param lines: When (seconds since the epoch) and what.
        :return: 0; 1 if the job is to be cancelled; -1 if it is over, or its lease is lost.
        """
        fields: dict[str, str] = {}
        if progress is not None:
            total = "" if progress.total is None else repr(progress.total)
            fields = {"done": repr(progress.done), "total": total, "message": progress.message}
        texts = [f"{at:.3f} {text[:LINE_LIMIT]}" for at, text in lines]
        # An empty JSON object is an empty table to the script, as it should be.
        args = (json.dumps(fields), self._max_log_lines, fence, *texts)
        return int(self._script("progress", job_id, *args, keys=[self.keys.log(job_id)]))

    def attach(self, job_id: str, file: dict[str, t.Any]) -> None:
        """Note a file of a job.

        :raises JobNotFound: There is no such job.
        """
        if not self._script("attach", job_id, json.dumps(file)):
            raise JobNotFound(job_id)

    def announce_files(self, job_id: str, seconds: float = 3600) -> None:
        """Say that files of a job will be there before it is.

        Whoever says so may die before the enqueue; after ``seconds``, prune then removes the files.
        """
        self._script("announce", job_id, seconds)

    def keep_response(
        self, job_id: str, shown: dict[str, t.Any], kept: dict[str, t.Any], *, fence: int
    ) -> bool:
        """Keep the answer of a background view with its record.

        :param shown: What :attr:`.JobRecord.response` tells of it.
        :param kept: All of it.
        :return: False if the job is over, or another worker's by now.
        """
        args = (json.dumps(shown), json.dumps(kept), fence)
        return bool(self._script("respond", job_id, *args))

    def prune(self, limit: int = 100) -> list[str]:
        """Forget jobs whose time is over; return their ids, whose files are to be removed."""
        return t.cast("list[str]", self._script("prune", "", limit))

    def prune_for(self, seconds: float) -> list[str]:
        """Forget as many as that takes, step by step; for who comes by every few seconds."""
        end = time.monotonic() + seconds
        gone: list[str] = []
        while step := self.prune(PRUNE):
            gone += step
            if len(step) < PRUNE or time.monotonic() > end:
                break
        return gone


def _ends(jobs: t.Sequence[Finished]) -> list[t.Any]:
    items: list[t.Any] = []
    for job in jobs:
        rest = ""
        if job.fields or job.state != JobState.SUCCEEDED or job.attempt != (0, 0):
            rest = json.dumps([job.state, dict(job.fields), *job.attempt])
        ran = "" if job.ran is None else job.ran
        items += (job.job_id, job.result, job.fence, ran, rest)
    return items
