"""What is compared: how the workers of each start, and how its finished jobs are counted."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

import redis

from flask_offload._cli.worker import worker
from flask_offload._store.keys import Keys

from .environments import ROOT, python_of

__all__ = ["PEERS", "SIDES", "Peer", "Side", "environment"]

Count = t.Callable[[redis.Redis, int], int]


@dataclass(frozen=True)
class Peer:
    """One library in one configuration.

    :param title: What the tables call it.
    :param done: How many of so many jobs are over: one or two commands that take constant time.
    :param kept: How many results there are, looked at once a round is over.
    :param on_kill: What becomes of a job whose worker is killed.
    :param module: Of the package ``bench.peers``.
    """

    title: str
    module: str
    done: Count
    kept: Count
    on_kill: str


@dataclass(frozen=True)
class Side:
    """A peer with one set-up of workers.

    :param topology: What the tables call it.
    :param commands: Arguments of a program of the peer's environment, for each worker.
    :param weight: Jobs a round, as a factor: so that a round takes seconds, and not minutes.
    """

    peer: str
    topology: str
    commands: list[list[str]]
    weight: float = 1.0
    env: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.peer}: {self.topology}" if self.topology else self.peer

    def start(self, url: str) -> list[list[str]]:
        """The commands, with the server's address where they name it."""
        programs = python_of(PEERS[self.peer].module).parent
        return [
            [str(programs / program), *(url if word == "{url}" else word for word in words)]
            for program, *words in self.commands
        ]


def environment(url: str, stamps: Path, more: t.Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of workers and clients."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    ours = {"BENCH_URL": url, "BENCH_STAMPS": str(stamps), "PYTHONPATH": path}
    return os.environ | ours | dict(more or {})


def _number(client: redis.Redis, *commands: tuple[t.Any, ...]) -> int:
    pipeline: t.Any = client.pipeline(transaction=True)
    for command in commands:
        pipeline.execute_command(*command)
    return sum(int(reply or 0) for reply in pipeline.execute())


def _left(*commands: tuple[t.Any, ...]) -> Count:
    """Those that are not waiting, and in nobody's hands."""
    return lambda client, jobs: jobs - _number(client, *commands)


def _exactly(*commands: tuple[t.Any, ...]) -> Count:
    return lambda client, _jobs: _number(client, *commands)


def _scan(pattern: str) -> Count:
    return lambda client, _jobs: sum(1 for _ in client.scan_iter(pattern, count=10_000))


def _line_done(namespace: str) -> Count:
    keys = Keys(namespace)
    return _left(("ZCARD", keys.queue("celery")), ("ZCARD", f"{keys.prefix}leases"))


def _taskiq_done(client: redis.Redis, jobs: int) -> int:
    groups: t.Any = client.xinfo_groups("taskiq")
    return jobs - sum(int(group["pending"]) + int(group["lag"] or 0) for group in groups)


PEERS = {
    "stock": Peer(
        "Celery, stock",
        "stock",
        _left(("LLEN", "celery"), ("HLEN", "unacked")),
        _scan("celery-task-meta-*"),
        "runs again after the visibility timeout; lost if killed between fetch and note",
    ),
    "ours": Peer(
        "Flask-Offload",
        "ours",
        _line_done("bench"),
        _exactly(("ZCARD", "{bench}:expiry")),
        "runs again",
    ),
    "plain": Peer(
        "Celery on our transport",
        "plain",
        _line_done("celery"),
        _exactly(("ZCARD", "{celery}:expiry")),
        "runs again",
    ),
    "dramatiq": Peer(
        "Dramatiq",
        "dramatiq",
        _left(("HLEN", "dramatiq:default.msgs")),
        _scan("dramatiq-results:*"),
        "runs again",
    ),
    "huey": Peer(
        "Huey",
        "huey",
        _exactly(("HLEN", "huey.results.bench")),
        _exactly(("HLEN", "huey.results.bench")),
        "**lost**",
    ),
    "taskiq": Peer(
        "Taskiq",
        "taskiq",
        _taskiq_done,
        _scan("bench-result:*"),
        "runs again",
    ),
    "rq": Peer(
        "RQ",
        "rq",
        _exactly(("ZCARD", "rq:finished:default")),
        _scan("rq:results:*"),
        "runs again, by its `Retry`",
    ),
    "ping": Peer("PING", "ping", _left(), _left(), ""),
}


def huey(threads: int) -> list[str]:
    return ["huey_consumer", "bench.peers.huey.huey", "-w", str(threads), "--quiet"]


def celery(app: str, *arguments: str, level: str = "WARNING") -> list[str]:
    module = f"bench.peers.{app}"
    command = ["celery", "-A", f"{module}:celery" if app == "ours" else module, "worker"]
    return [*command, f"--loglevel={level}", *ALONE, *arguments]


#: Workers of Celery otherwise ask the others at their start, and then listen to their events.
ALONE = ("--without-mingle", "--without-gossip")
PREFORK, THREADS = ("-P", "prefork", "-c", "2"), ("-P", "threads", "-c", "8")
SOLO = ("-P", "solo")


def pair(app: str, *pool: str) -> list[list[str]]:
    """Two workers of their own names."""
    return [celery(app, *pool, "-n", f"{name}@%h") for name in ("one", "two")]


def ours_two_by_four() -> list[list[str]]:
    """By the command for it; ``BENCH_PAIR=celery``, or a version without one: two workers."""
    known = {option for parameter in worker.params for option in parameter.opts}
    if os.environ.get("BENCH_PAIR") == "celery" or not {"--processes", "--threads"} <= known:
        return pair("ours", *TWO_BY_FOUR)
    command = ["flask", "--app", "bench.peers.ours", "offload", "worker", "--loglevel=WARNING"]
    return [[*command, *ALONE, "--processes", "2", "--threads", "4"]]


TWO_BY_FOUR = ("-P", "threads", "-c", "4")
INFO = ["--logfile=worker.log"]

SIDES = [
    Side("stock", "prefork 2", [celery("stock", *PREFORK)], 0.4),
    Side("stock", "threads 8", [celery("stock", *THREADS)], 0.4),
    Side("stock", "2 x 4 threads", pair("stock", *TWO_BY_FOUR), 0.4),
    Side("ours", "prefork 2", [celery("ours", *PREFORK)], 1),
    Side("ours", "threads 8", [celery("ours", *THREADS)], 4),
    Side("ours", "threads 8, INFO", [celery("ours", *THREADS, *INFO, level="INFO")], 4),
    Side("ours", "solo", [celery("ours", *SOLO)], 4),
    Side("ours", "2 x 4 threads", ours_two_by_four(), 4),
    Side("plain", "prefork 2", [celery("plain", *PREFORK)], 1),
    Side("plain", "threads 8", [celery("plain", *THREADS)], 1),
    Side("plain", "2 x 4 threads", pair("plain", *TWO_BY_FOUR), 1),
    Side(
        "dramatiq",
        "2 x 4 threads",
        [["dramatiq", "bench.peers.dramatiq", "-p", "2", "-t", "4", "--skip-logging"]],
    ),
    Side("huey", "threads 8", [huey(8)]),
    Side("huey", "2 x 4 threads", [huey(4)] * 2),
    Side(
        "taskiq",
        "2 workers",
        [["taskiq", "worker", "bench.peers.taskiq:broker", "-w", "2", "--log-level", "WARNING"]],
    ),
    Side("rq", "2 workers", [["rq", "worker", "--quiet", "--url", "{url}"]] * 2, 0.1),
]
