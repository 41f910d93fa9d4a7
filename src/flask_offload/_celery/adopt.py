"""From the queues of stock Celery on Redis into the line."""

from __future__ import annotations

import hashlib
import json
import re
import time
import typing as t
from collections import Counter
from dataclasses import dataclass, field, replace

from kombu.transport.redis import PRIORITY_STEPS
from kombu.transport.redis import Channel as Kombu

from .._jobs import JobState
from .._store import CLIENT_NAME, Adoption, Arrival, Entry, NewJob, as_bytes
from ..exceptions import ConfigError, OffloadError
from .message import FENCE, is_task, job_of

if t.TYPE_CHECKING:
    from .app import OffloadCelery

__all__ = ["Adopted", "StillConsumed", "adopt"]


class StillConsumed(OffloadError):
    """Somebody still takes messages from the old queues."""


@dataclass
class Adopted:
    """What became of the messages.

    :param queued, scheduled: In line, or to be later.
    :param known: Dropped: their jobs were in line, running or over already.
    :param dead: Not readable; among the dead, as they were.
    :param left: Taken by a worker from queues that were not asked for.
    :param elsewhere: What waits under the prefix that the stock transport of this package has.
    """

    queued: int = 0
    scheduled: int = 0
    known: int = 0
    dead: int = 0
    left: int = 0
    elsewhere: int = 0

    def __str__(self) -> str:
        parts = [
            f"{self.queued} queued",
            f"{self.scheduled} scheduled",
            f"{self.known} known already",
            f"{self.dead} dead",
        ]
        total = self.queued + self.scheduled + self.known + self.dead
        rest = f"; left {self.left} of other queues" if self.left else ""
        return f"Adopted {total}: {', '.join(parts)}{rest}."


def adopt(
    app: OffloadCelery,
    queues: t.Sequence[str] = (),
    *,
    prefix: str = "",
    source: str = "",
    force: bool = False,
) -> Adopted:
    """Move what waits in old queues into the line, oldest first; nothing is lost or doubled,
    also when this is killed and run again.

    :param queues: Their names; those that a worker of ``app`` listens to, unless given.
    :param prefix: What the names of the old keys start with: Celery's ``global_keyprefix``.
    :param source: The URL of the old server, unless it is ``OFFLOAD_URL``.
    :param force: Also while somebody consumes.
    :raises StillConsumed: Somebody does, or that cannot be told.
    :raises StoreUnavailable: A server is away.
    """
    store = app.store
    store.call("PING")  # starts the embedded server
    url = store.connections.url
    try:
        old = Adoption(url, app.settings, source=source or url, prefix=prefix)
    except ValueError as error:
        raise ConfigError(f"{source!r} is not the URL of a server: {error}") from error
    if not force:
        _check_consumers(old)
    names = tuple(queues) or tuple(app.amqp.queues.consume_from)
    mover = _Mover(old, names)
    # What was taken was taken first.
    for batch in old.taken():
        mover.taken(batch)
    for name in names:
        for step in PRIORITY_STEPS:
            mover.empty(f"{name}{Kombu.sep}{step}" if step else name, name)
    if not prefix and not source:
        mover.done.elsewhere = old.size(names, store.keys.prefix)
    return mover.done


def _check_consumers(old: Adoption) -> None:
    found = old.consumers(CLIENT_NAME)
    if found is None:
        raise StillConsumed(
            "It cannot be told whether a worker still consumes the old queues.\n"
            "Why: the user of the URL may not run CLIENT LIST.\n"
            "Mend: grant +client|list, or stop the old workers and add --force."
        )
    if found:
        raise StillConsumed(
            f"A worker of stock Celery still consumes on that server ({', '.join(found[:3])}).\n"
            "Why: what it takes while messages move could run twice.\n"
            "Mend: stop it first; if it serves other queues, add --force."
        )


@dataclass
class _Mover:
    old: Adoption
    queues: tuple[str, ...]
    done: Adopted = field(default_factory=Adopted)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)

    def empty(self, key: str, queue: str) -> None:
        """Empty a list."""
        while batch := self.old.tail(key):
            self._move([(entry, _arrival(entry, _message(entry.raw), queue)) for entry in batch])

    def taken(self, batch: t.Sequence[Entry]) -> None:
        """Move what stock workers took from our queues and did not acknowledge."""
        pairs = []
        for entry in batch:
            message, queue = self._origin(entry.raw)
            if queue and queue not in self.queues:
                self.done.left += 1
            else:
                pairs.append((entry, _arrival(entry, message, queue or self.queues[0])))
        while pairs:
            pairs = self._move(pairs)

    def _origin(self, raw: str) -> tuple[t.Any, str]:
        """The message of an entry of ``unacked``, and its queue: empty where that is unreadable."""
        try:
            message, exchange, key = json.loads(raw)
        except (ValueError, TypeError, RecursionError):
            return None, ""
        return message, self._queue_of(str(exchange or ""), str(key or ""))

    def _queue_of(self, exchange: str, key: str) -> str:
        if not exchange:
            return key
        if exchange not in self.tables:
            bindings = self.old.members(Kombu.keyprefix_queue % exchange)
            self.tables[exchange] = [binding.split(Kombu.sep) for binding in bindings]
        table = [binding for binding in self.tables[exchange] if len(binding) == 3]
        for bound, _, queue in table:
            if bound == key:
                return queue
        for _, pattern, queue in table:
            if pattern and re.match(pattern, key):
                return queue
        return key

    def _move(self, pairs: list[tuple[Entry, Arrival]]) -> list[tuple[Entry, Arrival]]:
        """Move entries; those that have to wait for a moment are returned."""
        counts: Counter[str] = Counter()
        later, pause = [], 0.0
        for pair, answer in zip(pairs, self.old.move(pairs), strict=True):
            what = answer[0]
            if what == "wait":
                later.append(pair)
                pause = max(pause, float(answer[1]))
            elif what in {"created", "again", "carried"}:
                counts["scheduled" if pair[1].job.delay else "queued"] += 1
            else:
                counts[what] += 1
        self.done.queued += counts["queued"]
        self.done.scheduled += counts["scheduled"]
        self.done.dead += counts["buried"]
        self.done.known += counts["exists"] + counts["unique"] + counts["cancelled"]
        # An enqueue that is under way is settled within its budget.
        time.sleep(min(pause, 1.0))
        return later


def _message(raw: str) -> t.Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _arrival(entry: Entry, message: t.Any, queue: str) -> Arrival:
    """What a message becomes: a job in line, or a dead one with the raw bytes."""
    try:
        if not is_task(message):
            raise ValueError("it names no task")
        headers, properties = message["headers"], message["properties"]
        headers.pop(FENCE, None)
        properties["delivery_info"].get("routing_key")
        if not isinstance(headers["task"], str) or not isinstance(headers["id"], str):
            raise TypeError("task and id must be texts")
        job = job_of(message)
        body, envelope = message["body"], json.dumps(message)
        if not isinstance(body, str):
            raise TypeError("the body must be a text")
        # What is no UTF-8 came as surrogates, which the line could not keep.
        job.id.encode(), job.fields().encode()
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
        name = "adopted-" + hashlib.sha256(as_bytes(entry.raw)).hexdigest()[:32]
        return Arrival(
            NewJob(id=name, task="", title="Unreadable message", queue=queue),
            JobState.DEAD,
            entry.raw,
            f"The message cannot be read: {error!r}"[:500],
        )
    state = JobState.SCHEDULED if job.delay else JobState.QUEUED
    if job.delay and job.retries:
        state = JobState.RETRYING
    # kombu takes what is out of bounds for the nearest bound, too.
    priority = min(9, max(0, job.priority))
    return Arrival(replace(job, queue=queue, priority=priority), state, envelope)
