"""The laboratory: a server, workers and producers as real processes, and what befalls them."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import typing as t
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import producer
import redis
from flask import Flask
from leaks import leaks
from ledger import Ledger, Tally
from tasks_app import create_app

import servers
from flask_offload import JobState
from waiting import wait_until

__all__ = ["Lab", "Worker"]

HERE = Path(__file__).parent


class Worker:
    """A worker process, with its pool."""

    def __init__(self, name: str, process: servers.Process, processes: int = 1) -> None:
        self.name = name
        self.process = process
        self._processes = processes

    @property
    def alive(self) -> bool:
        return self.process.popen.poll() is None

    @property
    def children(self) -> list[int]:
        """The processes of a prefork pool, or of a supervisor."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    def ready(self) -> bool:
        if not self.alive:
            raise AssertionError(f"{self.name} has ended: {self.process.text[-3000:]}")
        return self.process.text.count("ready.") >= self._processes

    def group(self, number: int) -> None:
        """Send a signal to the worker and its processes, which may have sessions of their own."""
        children = self.children
        os.killpg(self.process.pid, number)
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class Lab:
    """One system under test.

    :param column: ``ours`` or ``stock``, and the pool: ``ours:prefork``; ``ours:processes`` for
        ``flask offload worker --processes 2 --threads …``.
    :param lease: ``OFFLOAD_LEASE``; the visibility timeout of the stock transport.
    """

    def __init__(
        self, folder: Path, server: servers.Valkey, column: str, lease: float, seed: int
    ) -> None:
        self.folder = folder
        self.server = server
        self.engine, _, self.pool = column.partition(":")
        self.lease = lease
        self.random = random.Random(seed)
        self.ledger = Ledger(folder / "ledger")
        self.workers: list[Worker] = []
        self.producers: list[servers.Process] = []
        self.env = {
            "OFFLOAD_URL": server.url,
            "OFFLOAD_NAMESPACE": "chaos",
            "OFFLOAD_FILES_URL": str(folder / "files"),
            "CHAOS_LEDGER": str(self.ledger.path),
            **self._engine(),
        }

    def _engine(self) -> dict[str, str]:
        if self.engine == "stock":
            url = f"redis+kombu://127.0.0.1:{self.server.port}/0"
            return {"OFFLOAD_BROKER_URL": url, "VISIBILITY_TIMEOUT": f"{self.lease:g}"}
        return {"OFFLOAD_LEASE": f"{self.lease:g}"}

    # -- who takes part

    @cached_property
    def app(self) -> Flask:
        """The web process; it is this one."""
        app = create_app(self.env)
        # To read all records of the large counts takes longer than a request may.
        app.extensions["offload"].control.store.timeout = 30
        return app

    @property
    def control(self) -> t.Any:
        return self.app.extensions["offload"].control

    def worker(
        self, *arguments: str, concurrency: int = 2, ready: bool = True, **env: str
    ) -> Worker:
        name = f"w{len(self.workers)}"
        processes = min(2, concurrency) if self.pool == "processes" else 1
        if self.pool == "processes":
            app, start = "worker_app", servers.offload_worker
            command = ["--processes", str(processes), "--threads", str(concurrency // processes)]
        else:
            app, start = "worker_app.celery", servers.worker
            command = ["--pool", self.pool, "--concurrency", str(concurrency)]
        if self.engine == "stock":
            # Killed workers would otherwise be waited for at the start.
            command += ["--without-mingle", "--without-gossip"]
        process = start(
            app,
            self.folder / f"{name}.log",
            *command,
            *("-n", f"{name}@chaos"),
            *arguments,
            env={**self.env, "CHAOS_WORKER": name, **env},
            cwd=HERE,
        )
        self.workers.append(Worker(name, process, processes))
        if ready:
            self.ready(self.workers[-1])
        return self.workers[-1]

    def ready(self, *workers: Worker) -> None:
        for worker in workers:
            wait_until(worker.ready, 40, message=lambda w=worker: w.process.text[-3000:])  # type: ignore[misc]

    def producer(self, env: dict[str, str] | None = None, **options: t.Any) -> servers.Process:
        log = self.folder / f"producer{len(self.producers)}.log"
        command = [sys.executable, "producer.py", json.dumps(options)]
        self.producers.append(
            servers.Process(*command, log=log, env={**self.env, **(env or {})}, cwd=HERE)
        )
        return self.producers[-1]

    def produced(self, process: servers.Process, timeout: float = 120) -> None:
        wait_until(lambda: process.popen.poll() is not None, timeout, message="the producer's end")
        assert "produced." in process.text, process.text[-3000:]

    def enqueue(self, token: str, *args: t.Any, task: str = "job", **options: t.Any) -> t.Any:
        """Enqueue from this process; ``None`` if it was refused."""
        return producer.enqueue(self.app, self.ledger, task, token, *args, **options)

    # -- what befalls them

    def fault(self, what: str, worker: str = "*", **more: float) -> None:
        self.ledger.note("fault", what=what, worker=worker, **more)

    def kill(self, worker: Worker) -> None:
        """SIGKILL a worker and its pool, as the kernel does to a container."""
        # It may start one more between this line and its end.
        self.fault("kill", worker.name, until=time.monotonic() + 0.1)
        if worker.alive:
            worker.group(signal.SIGKILL)
        worker.process.kill()

    def restart_server(self) -> None:
        """SIGKILL the server and start it on its files."""
        since = time.monotonic()
        self.server.stop()
        self.server.start()
        self.fault("server", since=since, until=time.monotonic() + 0.5)

    def cut_clients(self) -> int:
        """``CLIENT KILL`` all connections but the one that says so."""
        with self.server.client() as client:
            count = 0
            for kind in ("normal", "pubsub"):
                killed = client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
                count += int(killed)
        return count

    # -- what came of it

    @property
    def tally(self) -> Tally:
        return self.ledger.tally()

    def started(self, *tokens: str) -> bool:
        return all(token in self.tally.runs for token in tokens)

    def drain(self, timeout: float, done: t.Callable[[], bool] | None = None) -> bool:
        """Wait until all that was confirmed is completed and all records are; false if not."""
        with suppress(AssertionError):
            wait_until(done or (lambda: not self.tally.lost), timeout, 0.1)
            # The ledger's last line comes before the last finish.
            wait_until(lambda: not self.unfinished(), 15, 0.2)
            return True
        return False

    def unfinished(self) -> list[t.Any]:
        return [r for r in self.control.newest(limit=1_000_000) if not r.state.finished]

    def leaks(self) -> list[str]:
        """What is on the server after a drain and should not be."""
        found = [f"{r.state} {r.id}" for r in self.unfinished()]
        # A name that is no text is told, too.
        with redis.Redis.from_url(
            self.server.url, decode_responses=True, encoding_errors="backslashreplace"
        ) as client:
            return found + leaks(client, self.control.store.keys.prefix)

    def states(self) -> dict[str, JobState]:
        """The states of all jobs, by token."""
        return {r.args[0]: r.state for r in self.control.newest(limit=1_000_000) if r.args}

    def queued(self, queue: str = "celery") -> int:
        """How many entries wait on the server."""
        prefix = self.control.store.keys.prefix
        with self.server.client() as client:
            if self.engine == "stock" or client.type(f"{prefix}{queue}") == "list":
                return int(client.llen(f"{prefix}{queue}"))
            return int(client.zcard(f"{prefix}queue:{queue}"))

    def close(self) -> None:
        for worker in self.workers:
            with suppress(ProcessLookupError):
                worker.group(signal.SIGCONT)
            worker.process.kill()
        for process in self.producers:
            process.kill()
        if "app" in self.__dict__:
            self.control.store.connections.close()
