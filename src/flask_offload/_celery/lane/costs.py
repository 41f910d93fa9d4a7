"""Which tasks may take the lane, and how long their jobs take."""

from __future__ import annotations

import json
import time
import typing as t

__all__ = ["Costs"]

#: What a task must have left as it is.
STRATEGY = "celery.worker.strategy:default"
REQUESTS = frozenset(
    {"celery.worker.request:Request", "flask_offload._celery.request:OffloadRequest"}
)
#: The seconds that a task is said to take of which nothing is known.
UNKNOWN = 1e6
#: Seconds that a job takes which no thread has waited for so long to be let go on.
LONG = 0.05
#: Seconds for which a text of all of them is good.
FRESH = 0.1


class Costs:
    """The tasks of one worker.

    :param consumer: Celery's, for its tasks and the limits of their rates.
    """

    def __init__(self, consumer: t.Any) -> None:
        self._consumer = consumer
        self._plain: dict[str, bool] = {}
        self._seconds: dict[str, float] = {}
        self._shown = (-FRESH, "{}")

    def fits(self, name: str) -> bool:
        """Whether the jobs of a task may take the lane now. A limit of its rate may come later."""
        if self._consumer.task_buckets.get(name):
            return False
        if name not in self._plain:
            task = self._consumer.app.tasks.get(name)
            if task is None:
                return False  # It may be registered later.
            self._plain[name] = bool(
                task.acks_late and task.Strategy == STRATEGY and task.Request in REQUESTS
            )
        return self._plain[name]

    def of(self, name: str, default: float) -> float:
        """The seconds that a job of a task takes."""
        return self._seconds.get(name, default)

    def measure(self, name: str, took: float) -> None:
        """Learn from a job.

        One that takes long counts at once, others little by little: most of those that were much
        slower than the others had only to wait for the interpreter or for a processor.
        """
        known = self._seconds.get(name)
        if known is None or (took > LONG and took > 4 * known):
            self._seconds[name] = took
        else:
            self._seconds[name] = known + (min(took, 8 * known) - known) / 8

    def shown(self) -> str:
        """The seconds of each task that may take the lane, as JSON."""
        now = time.monotonic()
        if now - self._shown[0] > FRESH:
            names = [name for name in self._consumer.app.tasks if self.fits(name)]
            seconds = {name: round(self.of(name, UNKNOWN), 6) for name in names}
            self._shown = (now, json.dumps(seconds))
        return self._shown[1]
