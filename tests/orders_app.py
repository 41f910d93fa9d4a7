"""A shop for tests: orders in a database, and jobs that follow them."""

from __future__ import annotations

import os
import typing as t

from flask import Flask, redirect, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Column, ForeignKey, Integer, String, event

from flask_offload import Job, Offload


class Shop:
    """An app with a database and tasks."""

    def __init__(self, **config: t.Any) -> None:
        app = self.app = Flask("orders")
        app.config.update(
            SECRET_KEY="only for tests",
            OFFLOAD_URL=os.environ.get("OFFLOAD_URL"),
            OFFLOAD_BROKER_URL=os.environ.get("OFFLOAD_BROKER_URL"),
            OFFLOAD_NAMESPACE=os.environ.get("OFFLOAD_NAMESPACE"),
            OFFLOAD_FILES_URL=os.environ.get("OFFLOAD_FILES_URL"),
            SQLALCHEMY_DATABASE_URI=os.environ.get("DATABASE", "sqlite://"),
        )
        app.config.update(config)
        self.db = db = SQLAlchemy()

        class Order(db.Model):
            id = Column(Integer, primary_key=True)
            name = Column(String, unique=True)
            # Looked at by the commit, not before.
            customer = Column(
                ForeignKey("order.id", deferrable=True, initially="DEFERRED"), nullable=True
            )

        self.Order = Order
        db.init_app(app)
        self.offload = offload = Offload(app)
        self.celery = offload.celery

        @offload.task(title="Pack {name}", sensitive=["card"])
        def pack(name: str, card: str = "") -> str:
            return name

        @offload.task
        def take(name: str, fail: bool = False) -> str:
            db.session.add(Order(name=name))
            job = pack.delay_on_commit(name)
            if fail:
                db.session.rollback()
            db.session.commit()
            return str(job.id)

        self.pack, self.take = pack, take
        app.add_url_rule("/orders", view_func=self.order, methods=["POST"])
        with app.app_context():
            _real_savepoints(db.engine)
            db.create_all()

    def order(self) -> t.Any:
        job = self.add(request.form["name"])
        self.db.session.commit()
        return redirect(job.url, 303)

    def add(self, name: str, session: t.Any = None) -> Job:
        """A row, and the job that follows it."""
        session = session or self.db.session
        session.add(self.Order(name=name))
        session.flush()
        return self.pack.options(session=session).delay_on_commit(name)

    def rows(self) -> set[str]:
        with self.db.engine.connect() as connection:
            return set(connection.scalars(self.db.select(self.Order.__table__.c.name)))


def _real_savepoints(engine: t.Any) -> None:
    """SQLite as other databases are: Python's driver begins transactions late, and SQLite looks
    at foreign keys only if it is asked to."""

    @event.listens_for(engine, "connect")
    def connected(connection: t.Any, record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begun(connection: t.Any) -> None:
        connection.exec_driver_sql("BEGIN")


if "DATABASE" in os.environ:
    celery = Shop().celery
