"""Whether ``delay_on_commit`` keeps rows of a database and jobs together, and what it costs.

    .venv/bin/python -m bench.commits                       # all three parts, in about two minutes
    .venv/bin/python -m bench.commits --transactions 2000 --kills 50

Each process has a SQLite file, which is the ledger: each transaction adds a row or more, and asks
for a job for each. Then the rows are counted against the records on the server.

1. Transactions, of which three in ten are rolled back in one of five ways, and half have
   savepoints, rolled back as often.
2. Processes that do the same without a pause until they get SIGKILL at a random moment. What was
   committed and has no job was lost between the two. Then a sweep enqueues all rows again, with
   the ids that they keep of their jobs.
3. The processor time of a transaction with ``delay()`` after the commit, and with
   ``delay_on_commit()`` before it, in turns.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import statistics
import tempfile
import time
import typing as t
from collections import Counter
from pathlib import Path

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Column, String, event

from flask_offload import Job, Offload

from .server import Server

SPAWN = multiprocessing.get_context("spawn")
FORK = multiprocessing.get_context("fork")
ROLLED_BACK = 0.3


class Shop:
    """An app with a database, and a job for each row."""

    def __init__(self, url: str, file: Path, namespace: str) -> None:
        app = self.app = Flask("shop")
        app.config.update(
            SECRET_KEY="only for benchmarks",
            OFFLOAD_URL=url,
            OFFLOAD_NAMESPACE=namespace,
            SQLALCHEMY_DATABASE_URI=f"sqlite:///{file}",
        )
        self.db = db = SQLAlchemy(app)
        self.offload = Offload(app)

        class Order(db.Model):
            name = Column(String, primary_key=True)
            job_id = Column(String)

        @self.offload.task
        def pack(name: str) -> None: ...

        self.Order, self.pack = Order, pack
        with app.app_context():
            _as_other_databases(db.engine)
            db.create_all()

    def order(self, name: str) -> None:
        job = self.pack.delay_on_commit(name)
        self.db.session.add(self.Order(name=name, job_id=job.id))

    def rows(self) -> dict[str, str]:
        """What was committed, and the id of its job."""
        with self.app.app_context(), self.db.engine.connect() as connection:
            table = self.Order.__table__
            return dict(tuple(row) for row in connection.execute(table.select()))

    def jobs(self) -> Counter[str]:
        """What there are jobs for, and how many."""
        return Counter(r.args[0] for r in self.offload.control.newest(limit=10_000_000))


def _as_other_databases(engine: t.Any) -> None:
    """Have savepoints work, which Python's driver for SQLite does not by itself; and do not wait
    for the disk: a process that is killed loses nothing by that, and the more of its time is
    spent where it matters here."""

    @event.listens_for(engine, "connect")
    def connected(connection: t.Any, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = OFF")

    @event.listens_for(engine, "begin")
    def begun(connection: t.Any) -> None:
        connection.exec_driver_sql("BEGIN")


def transactions(shop: Shop, chance: random.Random, names: t.Iterable[str]) -> Counter[str]:
    """Run one transaction for each name; how they ended."""
    ends: Counter[str] = Counter()
    for name in names:
        with shop.app.app_context():
            end = "commit"
            if chance.random() < ROLLED_BACK:
                end = chance.choice(["rollback", "close", "remove", "error", "end of the request"])
            ends[end] += 1
            _transaction(shop, chance, name, end)
    return ends


def _transaction(shop: Shop, chance: random.Random, name: str, end: str) -> None:
    session = shop.db.session
    if end == "error":
        try:
            with session.begin():
                _work(shop, chance, name)
                raise ZeroDivisionError
        except ZeroDivisionError:
            return
    _work(shop, chance, name)
    if end != "end of the request":
        getattr(session, end)()


def _work(shop: Shop, chance: random.Random, name: str, depth: int = 0) -> None:
    shop.order(f"{name}.")
    if depth == 3 or chance.random() < 0.5:
        return
    for number in range(chance.randint(1, 2)):
        savepoint = shop.db.session.begin_nested()
        _work(shop, chance, f"{name}.{number}", depth + 1)
        savepoint.rollback() if chance.random() < ROLLED_BACK else savepoint.commit()


class Compared(t.NamedTuple):
    """Rows against jobs."""

    rows: int
    phantom: int
    missing: int
    twice: int


def compare(shop: Shop) -> Compared:
    rows, jobs = set(shop.rows()), shop.jobs()
    twice = sum(count > 1 for count in jobs.values())
    return Compared(len(rows), len(jobs.keys() - rows), len(rows - jobs.keys()), twice)


# -- 1


def many(url: str, file: Path, seed: int, count: int) -> tuple[Counter[str], Compared]:
    shop = Shop(url, file, f"many{seed}")
    ends = transactions(shop, random.Random(seed), (f"{seed}-{i}" for i in range(count)))
    return ends, compare(shop)


def part_one(url: str, folder: Path, count: int, processes: int) -> bool:
    share = count // processes
    calls = [(url, folder / f"many{n}.db", n, share) for n in range(processes)]
    with SPAWN.Pool(processes) as pool:
        found = pool.starmap(many, calls)
    ends = sum((ends for ends, _ in found), Counter[str]())
    columns = zip(*(compared for _, compared in found), strict=True)
    rows, phantom, missing, twice = (sum(column) for column in columns)
    back = ends.total() - ends["commit"]
    print(f"{ends.total():,} transactions, {back / ends.total():.1%} rolled back: {dict(ends)}")
    print(f"  {rows:,} rows; phantom jobs {phantom}, missing {missing}, twice {twice}")
    return not (phantom or missing or twice)


# -- 2


def until_killed(url: str, file: Path, number: int, ready: t.Any) -> None:
    shop = Shop(url, file, "killed")
    chance = random.Random(number)
    transactions(shop, chance, [f"{number}-warm"])
    ready.set()
    transactions(shop, chance, (f"{number}-{i}" for i in range(10**9)))


def part_two(url: str, folder: Path, kills: int) -> bool:
    file = folder / "killed.db"
    chance = random.Random(7)
    for number in range(kills):
        ready = FORK.Event()
        process = FORK.Process(target=until_killed, args=(url, file, number, ready))
        process.start()
        ready.wait(60)
        time.sleep(chance.uniform(0, 0.1))
        os.kill(t.cast("int", process.pid), signal.SIGKILL)
        process.join()
    shop = Shop(url, file, "killed")
    found = compare(shop)
    print(f"{kills} processes killed by SIGKILL, {found.rows:,} rows")
    print(
        f"  phantom jobs {found.phantom}, twice {found.twice}, "
        f"missing {found.missing} ({_commits_lost(shop)} of the kills hit the window)"
    )
    for name, job_id in shop.rows().items():
        # Of an id that there is already, nothing comes of it.
        shop.pack.apply_async((name,), task_id=job_id)
    swept = compare(shop)
    print(
        f"  after the sweep: phantom {swept.phantom}, missing {swept.missing}, twice {swept.twice}"
    )
    return not (found.phantom or found.twice or any(swept[1:]))


def _commits_lost(shop: Shop) -> int:
    lost = shop.rows().keys() - shop.jobs().keys()
    return len({name.partition("-")[0] for name in lost})


# -- 3


def part_three(url: str, folder: Path, rounds: int = 7, count: int = 500) -> None:
    shop = Shop(url, folder / "cost.db", "cost")

    def after(name: str) -> Job:
        shop.db.session.add(shop.Order(name=name, job_id=""))
        shop.db.session.commit()
        return shop.pack.delay(name)

    def on_commit(name: str) -> Job:
        shop.db.session.add(shop.Order(name=name, job_id=""))
        job = shop.pack.delay_on_commit(name)
        shop.db.session.commit()
        return job

    took: dict[str, list[float]] = {"delay": [], "delay_on_commit": []}
    for number in range(rounds + 1):
        for kind, run in (("delay", after), ("delay_on_commit", on_commit)):
            started = time.process_time()
            for i in range(count):
                with shop.app.app_context():
                    run(f"{kind} {number} {i}")
            if number:  # the first one warms up
                took[kind].append((time.process_time() - started) / count * 1e6)
    plain, hooked = (statistics.median(values) for values in took.values())
    print(f"processor time of a transaction: {plain:.0f} µs with delay() after the commit,")
    print(f"  {hooked:.0f} µs with delay_on_commit(): {hooked - plain:+.0f} µs a job")


def main() -> None:
    parser = argparse.ArgumentParser(description=t.cast("str", __doc__).partition("\n")[0])
    parser.add_argument("--transactions", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kills", type=int, default=300)
    given = parser.parse_args()
    server = Server()
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            good = part_one(server.url, folder, given.transactions, given.processes)
            good &= part_two(server.url, folder, given.kills)
            part_three(server.url, folder)
    finally:
        server.stop()
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
