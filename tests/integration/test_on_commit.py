"""``delay_on_commit``: a job after the commit, and none after anything else."""

from __future__ import annotations

import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.orm import Session

import servers
from flask_offload import (
    ConfigError,
    JobNotFound,
    JobState,
    LostAfterCommit,
    NotSerializable,
    PayloadTooLarge,
)
from orders_app import Shop
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System


@pytest.fixture
def shop(system: System) -> t.Iterator[Shop]:
    shop = make(system)
    with shop.app.app_context():
        yield shop


def make(system: System, **config: t.Any) -> Shop:
    uri = f"sqlite:///{system.folder}/orders.db"
    config = {key: v for key, v in system.env.items() if key.startswith("OFFLOAD_")} | config
    return Shop(SQLALCHEMY_DATABASE_URI=uri, **config)


def jobs(shop: Shop) -> set[str]:
    """What the records say was ordered."""
    found = shop.offload.control.newest(limit=100)
    assert {record.state for record in found} <= {JobState.QUEUED}
    return {record.title.removeprefix("Pack ") for record in found}


def agree(shop: Shop, *names: str) -> None:
    """There is a row and a job for each of these, and nothing else."""
    assert shop.rows() == set(names)
    assert jobs(shop) == set(names)


def add_and_fail(shop: Shop, block: t.ContextManager[t.Any], *names: str) -> None:
    with block:
        for name in names:
            shop.add(name)
        raise ZeroDivisionError


# -- one transaction


def test_the_job_is_there_after_the_commit(shop: Shop) -> None:
    job = shop.add("a")
    with pytest.raises(JobNotFound):
        job.record  # noqa: B018
    assert jobs(shop) == set()
    shop.db.session.commit()
    assert job.record.state is JobState.QUEUED
    agree(shop, "a")
    # Once.
    shop.db.session.commit()
    agree(shop, "a")


@pytest.mark.parametrize("end", ["rollback", "close", "remove"])
def test_what_is_not_committed_has_no_job(shop: Shop, end: str) -> None:
    shop.add("a")
    getattr(shop.db.session, end)()
    shop.add("b")
    shop.db.session.commit()
    agree(shop, "b")


def test_the_end_of_the_request_is_no_commit(shop: Shop) -> None:
    with shop.app.app_context():
        shop.add("a")
    with shop.app.app_context():
        shop.db.session.commit()
    agree(shop)


def test_a_session_that_has_not_begun(shop: Shop) -> None:
    shop.pack.delay_on_commit("a")
    shop.db.session.close()
    shop.pack.delay_on_commit("b")
    shop.db.session.rollback()
    shop.pack.delay_on_commit("c")
    assert jobs(shop) == set()
    shop.db.session.commit()
    assert jobs(shop) == {"c"}


def test_a_block(shop: Shop) -> None:
    with shop.db.session.begin():
        shop.add("a")
    with pytest.raises(ZeroDivisionError):
        add_and_fail(shop, shop.db.session.begin(), "b")
    agree(shop, "a")


def test_a_commit_that_the_database_refuses(shop: Shop) -> None:
    shop.add("a")
    shop.db.session.add(shop.Order(name="b", customer=77))
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="FOREIGN KEY"):
        shop.db.session.commit()
    shop.db.session.rollback()
    shop.db.session.commit()
    agree(shop)


def test_a_flush_that_the_database_refuses(shop: Shop) -> None:
    shop.add("a")
    shop.db.session.commit()
    shop.add("b")
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="UNIQUE"):
        shop.add("a")
    shop.db.session.rollback()
    shop.db.session.commit()
    agree(shop, "a")


def test_a_listener_that_fails_loses_nothing(shop: Shop) -> None:
    session = Session(shop.db.engine)

    @event.listens_for(session, "after_commit")
    def fail(_: object) -> None:
        raise ZeroDivisionError

    shop.add("a", session)
    with pytest.raises(ZeroDivisionError):
        session.commit()
    session.close()
    agree(shop, "a")


def test_from_within_events_of_the_session(shop: Shop) -> None:
    session = Session(shop.db.engine)
    task = shop.pack.options(session=session)
    event.listen(session, "before_commit", lambda _: task.delay_on_commit("before_commit"))
    event.listen(session, "after_flush", lambda *_: task.delay_on_commit("after_flush"))
    session.add(shop.Order(name="x"))
    session.rollback()
    assert jobs(shop) == set()
    session.add(shop.Order(name="x"))
    session.commit()
    assert jobs(shop) == {"before_commit", "after_flush"}


# -- savepoints


def test_a_savepoint_takes_its_own_along(shop: Shop) -> None:
    session = shop.db.session
    shop.add("a")
    savepoint = session.begin_nested()
    shop.add("b")
    savepoint.rollback()
    shop.add("c")
    with session.begin_nested():
        shop.add("d")
        with pytest.raises(ZeroDivisionError):
            add_and_fail(shop, session.begin_nested(), "e")
        with session.begin_nested():
            shop.add("f")
    assert jobs(shop) == set()
    session.commit()
    agree(shop, *"acdf")


def test_a_released_savepoint_is_rolled_back_with_what_is_around_it(shop: Shop) -> None:
    outer = shop.db.session.begin_nested()
    with shop.db.session.begin_nested():
        shop.add("a")
    outer.rollback()
    shop.add("b")
    shop.db.session.commit()
    agree(shop, "b")
    with shop.db.session.begin_nested():
        shop.add("c")
    shop.db.session.rollback()
    shop.db.session.commit()
    agree(shop, "b")


def test_a_commit_with_savepoints_open(shop: Shop) -> None:
    shop.db.session.begin_nested()
    shop.add("a")
    shop.db.session.begin_nested()
    shop.add("b")
    shop.db.session.commit()
    agree(shop, "a", "b")


def test_a_block_that_ends_with_a_savepoint_open(shop: Shop) -> None:
    with shop.db.session.begin():
        shop.db.session.begin_nested()
        shop.add("a")
    agree(shop, "a")


def test_a_savepoint_that_a_flush_has_spoilt(shop: Shop) -> None:
    shop.add("a")
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        add_and_fail(shop, shop.db.session.begin_nested(), "b", "a")
    shop.db.session.commit()
    agree(shop, "a")


# -- sessions


def test_each_session_has_its_own(shop: Shop) -> None:
    first, second = Session(shop.db.engine), Session(shop.db.engine)
    shop.pack.options(session=first).delay_on_commit("a")
    shop.pack.options(session=second).delay_on_commit("b")
    shop.pack.delay_on_commit("c")
    second.commit()
    assert jobs(shop) == {"b"}
    first.close()
    shop.db.session.commit()
    assert jobs(shop) == {"b", "c"}
    first.commit()
    assert jobs(shop) == {"b", "c"}


class TwoPhases(SQLiteDialect_pysqlite):
    """SQLite with the words of two-phase commits, which it does in one."""

    supports_statement_cache = True

    def do_begin_twophase(self, connection: t.Any, xid: t.Any) -> None:
        self.do_begin(connection.connection)

    def do_prepare_twophase(self, connection: t.Any, xid: t.Any) -> None:
        if connection.engine.url.database.endswith("refuses.db"):
            raise RuntimeError("not prepared")

    def do_rollback_twophase(self, connection: t.Any, *_: t.Any, **__: t.Any) -> None:
        self.do_rollback(connection.connection)

    def do_commit_twophase(self, connection: t.Any, *_: t.Any, **__: t.Any) -> None:
        self.do_commit(connection.connection)


registry.register("sqlite.twophases", __name__, "TwoPhases")


def test_two_phases(shop: Shop, tmp_path: Path) -> None:
    good = sqlalchemy.create_engine(f"sqlite+twophases:///{tmp_path}/1.db")
    bad = sqlalchemy.create_engine(f"sqlite+twophases:///{tmp_path}/refuses.db")
    session = Session(good, twophase=True)
    for engines in ([good], [good, bad]):
        for engine in engines:
            session.connection(bind_arguments={"bind": engine})
        shop.pack.options(session=session).delay_on_commit(f"{len(engines)}")
        if engines == [good]:
            session.prepare()
            assert jobs(shop) == set()
            session.commit()
        else:
            with pytest.raises(RuntimeError, match="not prepared"):
                session.commit()
            session.close()
    assert jobs(shop) == {"1"}
    good.dispose()
    bad.dispose()


# -- what is enqueued


def test_arguments_are_judged_at_once_and_kept_as_they_are(shop: Shop) -> None:
    with pytest.raises(TypeError, match="colour"):
        shop.pack.delay_on_commit("a", colour="red")  # type: ignore[call-arg]
    with pytest.raises(NotSerializable, match="order"):
        shop.pack.delay_on_commit(shop.Order(name="a"))
    with pytest.raises(PayloadTooLarge):
        shop.pack.delay_on_commit("x" * 1_000_001)
    names = ["a"]
    shop.pack.delay_on_commit(names)  # type: ignore[arg-type]
    names.append("b")
    shop.db.session.commit()
    (record,) = shop.offload.control.newest(limit=9)
    assert record.args == [["a"]]


def test_options(shop: Shop) -> None:
    job = shop.pack.options(queue="slow", delay=60).delay_on_commit("a")
    shop.db.session.commit()
    assert (job.record.queue, job.record.state) == ("slow", JobState.SCHEDULED)
    first = shop.pack.options(unique="b").delay("b")
    second = shop.pack.options(unique="b").delay_on_commit("b")
    assert second.id != first.id
    shop.db.session.commit()
    # There is one job, and both mean it.
    assert second.id == first.id
    with pytest.raises(TypeError, match="delay_on_commit"):
        shop.pack.options(session=shop.db.session).delay("c")


def test_for_whom(shop: Shop) -> None:
    client = shop.app.test_client()
    first = client.post("/orders", data={"name": "a"}, headers={"X-Request-ID": "r1"})
    assert client.get(first.location, follow_redirects=True).status_code == 200
    assert shop.app.test_client().get(first.location.partition("?")[0]).status_code == 404
    (record,) = shop.offload.control.newest(limit=9)
    assert record.request_id == "r1"
    assert record.owners[0].startswith("c:")


def test_for_whom_is_known_before_the_commit(shop: Shop) -> None:
    session = Session(shop.db.engine)
    with shop.app.test_request_context(headers={"X-Request-ID": "r1"}):
        job = shop.pack.options(session=session).delay_on_commit("a")
        owners = shop.offload.state.access.visitor()
    session.commit()
    assert (job.record.owners, job.record.request_id) == (owners, "r1")
    assert owners


def test_over_another_broker(system: System) -> None:
    broker = system.env["OFFLOAD_URL"].replace("redis://", "redis+kombu://")
    shop = make(system, OFFLOAD_BROKER_URL=broker)
    with shop.app.app_context():
        shop.add("a")
        shop.db.session.rollback()
        shop.add("b")
        shop.db.session.commit()
        agree(shop, "b")


def test_inside_a_task(shop: Shop, system: System) -> None:
    database = {"DATABASE": shop.app.config["SQLALCHEMY_DATABASE_URI"]}
    worker = servers.worker(
        "orders_app.celery", system.folder / "worker.log", "--pool=threads", "--concurrency=2",
        env=system.env | database,
    )  # fmt: skip
    system.workers.append(worker)
    taken, dropped = shop.take.delay("a"), shop.take.delay("b", fail=True)
    packed = shop.celery.AsyncResult(taken.get(timeout=40))
    assert packed.get(timeout=20) == "a"
    assert packed.record.parent_id == taken.id
    never = dropped.get(timeout=20)
    with pytest.raises(JobNotFound):
        shop.offload.get(never)
    assert shop.rows() == {"a"}


# -- what can fail


def test_the_server_is_away_after_the_commit(
    own_valkey: servers.Valkey,
    make_system: t.Callable[..., System],
    caplog: pytest.LogCaptureFixture,
) -> None:
    shop = make(make_system(own_valkey.url), OFFLOAD_PUBLISH_TIMEOUT=0.5)
    with shop.app.app_context():
        ids = [shop.pack.delay_on_commit(name, card="4242").id for name in "abc"]
        shop.db.session.add(shop.Order(name="a"))
        own_valkey.stop()
        with pytest.raises(LostAfterCommit, match="3 of the 3 jobs") as raised:
            shop.db.session.commit()
        # It stands, and the session goes on.
        assert raised.value.job_ids == ids
        assert shop.rows() == {"a"}
        lost = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
        assert [job_id in line for job_id, line in zip(ids, lost, strict=True)] == [True] * 3
        assert "orders_app.pack" in lost[1]
        assert '"b"' in lost[1]
        assert "4242" not in caplog.text
        with pytest.raises(LostAfterCommit, match="1 of the 1 jobs"), shop.db.session.begin():
            shop.add("d")
        with shop.db.session.begin(), shop.db.session.begin_nested():
            shop.db.session.add(shop.Order(name="e"))
        assert shop.rows() == {"a", "d", "e"}

    # In a view that does not expect it.
    response = shop.app.test_client().post("/orders", data={"name": "f"})
    assert response.status_code == 500
    assert "Retry-After" not in response.headers
    assert "This was saved" in response.text
    assert "Nothing was changed" not in response.text
    own_valkey.start()
    with shop.app.app_context():
        assert shop.rows() == {"a", "d", "e", "f"}
        shop.add("g")
        shop.db.session.commit()
        wait_until(lambda: jobs(shop) == {"g"})


def test_one_that_cannot_be_enqueued_does_not_hold_up_the_others(system: System) -> None:
    shop = make(system, CELERY={"task_create_missing_queues": False})
    with shop.app.app_context():
        shop.add("a")
        wrong = shop.pack.options(queue="nowhere").delay_on_commit("b")
        shop.add("c")
        with pytest.raises(LostAfterCommit, match="1 of the 3 jobs") as raised:
            shop.db.session.commit()
        assert raised.value.job_ids == [wrong.id]
        agree(shop, "a", "c")


def test_an_app_without_a_database(system: System) -> None:
    tasks = system.app().extensions["offload"].celery.tasks
    with pytest.raises(ConfigError, match="db.init_app"):
        tasks["sample.add"].delay_on_commit(1)


def test_without_the_extra(system: System) -> None:
    code = """
import sys
sys.modules["sqlalchemy"] = None
import sample
try:
    sample.celery.tasks["sample.add"].delay_on_commit(1)
except Exception as error:
    print(type(error).__name__, error)
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=servers.HERE, env=servers.environment(system.env),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.startswith("ConfigError")
    assert 'pip install "Flask-Offload[sqlalchemy]"' in run.stdout
