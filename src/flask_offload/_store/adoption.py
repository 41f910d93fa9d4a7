"""The queues of stock Celery on Redis, as far as moving out of them goes."""

from __future__ import annotations

import hashlib
import typing as t
from dataclasses import dataclass

import redis
from redis.exceptions import NoPermissionError

from . import scripts
from .base import Base
from .connection import Deadline, Link, StoreUnavailable

if t.TYPE_CHECKING:
    from .._config import Settings
    from .data import NewJob

__all__ = ["Adoption", "Arrival", "Entry", "as_bytes"]

#: Messages a round; each may be large.
BATCH = 50
#: Seconds for one round.
ROUND = 30.0
#: Where a stock worker keeps what it has taken, and when it took it.
UNACKED, UNACKED_INDEX = "unacked", "unacked_index"
#: For a message that nobody waits for: an enqueue of it is never too late.
ANY_TIME = 9_000_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in an old queue.

    :param raw: What is there; bytes that are not text are surrogates.
    :param key: The list, or the hash, with its prefix.
    :param tag: The field of the hash; empty for the tail of a list.
    """

    raw: str
    key: str
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What an entry becomes.

    :param envelope: The message; for one that cannot be read, the entry as it is.
    :param unreadable: Why it cannot be read.
    """

    job: NewJob
    state: str
    envelope: str
    unreadable: str = ""


class Adoption(Base):
    """Takes messages from the lists of stock Celery, and puts them in line.

    On one server each is moved in one step. From another server it is put in line first, which
    adds nothing the second time, and removed after.

    :param url: The server of the line.
    :param source: The server of the old lists.
    :param prefix: What the names of the old keys start with.
    """

    def __init__(self, url: str, settings: Settings, *, source: str, prefix: str) -> None:
        super().__init__(_lossless(url), settings)
        self.prefix = prefix
        old = Base(_lossless(source), settings)
        self._same = old.connections.address == self.connections.address
        self._old = self if self._same else old

    # -- what is there

    def consumers(self, ours: str) -> list[str] | None:
        """The addresses of those who take from lists of this database, other than workers that
        are named ``ours``; ``None`` where the server does not tell."""
        try:
            lines = self._old.call("CLIENT", "LIST").splitlines()
        except StoreUnavailable as error:
            if isinstance(error.__cause__, NoPermissionError):
                return None
            raise
        clients = [dict(item.partition("=")[::2] for item in line.split()) for line in lines]
        # The last command of a worker whose hands are full is BRPOP, too.
        return [
            client["addr"]
            for client in clients
            if client["cmd"].lower() == "brpop"
            and client["db"] == str(self._old.connections.database)
            and client["name"] != ours
        ]

    def tail(self, name: str) -> list[Entry]:
        """The oldest entries of a list, the oldest first."""
        key = self.prefix + name
        found = self._old.call("LRANGE", key, -BATCH, -1, deadline=Deadline.after(ROUND))
        return [Entry(raw, key) for raw in reversed(found)]

    def size(self, names: t.Sequence[str], prefix: str) -> int:
        """How many entries some lists have under a prefix."""
        return sum(int(self._old.call("LLEN", prefix + name)) for name in names)

    def taken(self) -> t.Iterator[list[Entry]]:
        """What workers had taken and not acknowledged, the oldest first, in batches."""
        key, index = self.prefix + UNACKED, self.prefix + UNACKED_INDEX
        known = self._old.call("ZRANGE", index, 0, -1)
        tags = list(dict.fromkeys([*known, *self._old.call("HKEYS", key)]))
        for start in range(0, len(tags), BATCH):
            some = tags[start : start + BATCH]
            raws = self._old.call(
                "HMGET", key, *map(as_bytes, some), deadline=Deadline.after(ROUND)
            )
            pairs = list(zip(some, raws, strict=True))
            gone = [tag for tag, raw in pairs if raw is None]
            if gone:
                self._old.call("ZREM", index, *map(as_bytes, gone))
            yield [Entry(raw, key, tag) for tag, raw in pairs if raw is not None]

    def members(self, name: str) -> list[str]:
        """The members of a set."""
        return sorted(self._old.call("SMEMBERS", self.prefix + name))

    # -- moving

    def move(self, pairs: t.Sequence[tuple[Entry, Arrival]]) -> list[list[str]]:
        """Move entries; what became of each, as the script says."""
        calls = [self._call_for(entry, arrival) for entry, arrival in pairs]
        answers = self._call(
            lambda link: scripts.run_all(link, "adopt", calls), Deadline.after(ROUND)
        )
        if not self._same:
            self._remove(
                [
                    entry
                    for (entry, _), answer in zip(pairs, answers, strict=True)
                    if answer[0] not in {"wait", "late"}
                ]
            )
        return t.cast("list[list[str]]", answers)

    def _call_for(self, entry: Entry, arrival: Arrival) -> tuple[list[str], list[t.Any]]:
        job = arrival.job
        keys, digest = [self.keys.job(job.id)], ""
        if self._same:
            keys += [entry.key, self.prefix + UNACKED_INDEX]
            digest = hashlib.sha1(as_bytes(entry.raw), usedforsecurity=False).hexdigest()
        return keys, [
            *self._common(job.id), job.fields(), job.nesting, job.retries,
            arrival.state, job.delay, 0, as_bytes(arrival.envelope), ANY_TIME,
            as_bytes(entry.tag), digest, arrival.unreadable,
        ]  # fmt: skip

    def _remove(self, entries: t.Sequence[Entry]) -> None:
        """Remove entries of another server whose jobs are in line here."""
        commands: list[tuple[t.Any, ...]] = []
        for entry in entries:
            if entry.tag:
                commands.append(("HDEL", entry.key, as_bytes(entry.tag)))
                commands.append(("ZREM", self.prefix + UNACKED_INDEX, as_bytes(entry.tag)))
            else:
                # By its value: what stands at the tail may be another one by now.
                commands.append(("LREM", entry.key, -1, as_bytes(entry.raw)))

        self._old._call(lambda link: _pipeline(link, commands), Deadline.after(ROUND))


def as_bytes(text: str) -> bytes:
    """What is on the server. The connection would send plain text only."""
    return text.encode("utf-8", "surrogateescape")


def _pipeline(link: Link, commands: t.Sequence[tuple[t.Any, ...]]) -> list[t.Any]:
    replies = link.pipeline(commands) if commands else []
    for reply in replies:
        if isinstance(reply, redis.ResponseError):
            raise reply
    return replies


def _lossless(url: str) -> str:
    """A URL of connections that give any bytes back as they were."""
    mark = "&" if "?" in url else "?"
    return f"{url}{mark}encoding_errors=surrogateescape"
