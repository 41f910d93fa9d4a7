"""What a type checker knows of a decorated function. Checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import Any, assert_type

from flask import Flask
from sqlalchemy.orm import Session

from flask_offload import Job, JobRecord, JobState, Offload, current_job

offload = Offload(Flask(__name__))
session = Session()


@offload.task
def add(a: int, b: int = 1) -> int:
    for number in current_job.track([1, 2], "Adding"):
        assert_type(number, int)
    return a + b


@offload.task(title="Report for {month}", retries=3, sensitive=["password"], acks_late=False)
def report(month: str, *, password: str) -> dict[str, Any]:
    return current_job.attach("report.pdf", b"")


@offload.task
async def fetch(url: str) -> bytes:
    return b""


@offload.background
def export(name: str) -> str:
    return name


@offload.background(title="Import of {name}", unique=True, retries=2, priority=3, acks_late=False)
async def bring_in(name: str, *, kind: int = 1) -> tuple[str, int]:
    return name, 201


@offload.rerun
def load_user() -> None: ...


assert_type(export("x"), str)
assert_type(load_user(), None)


async def call() -> None:
    assert_type(await bring_in("x", kind=2), tuple[str, int])


export(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
bring_in("x", sort=2)  # type: ignore[call-arg, unused-coroutine]  # pyright: ignore[reportCallIssue]
offload.background(unique="x")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]

assert_type(add(1, b=2), int)
assert_type(fetch("x"), bytes)
assert_type(add.delay(1), Job)
assert_type(add.options(queue="slow", delay=3).delay(1, 2), Job)
assert_type(add.delay_on_commit(1, b=2), Job)
assert_type(add.options(session=session).delay_on_commit(1), Job)
assert_type(report.delay("2026-10", password="x").record, JobRecord)
assert_type(report("2026-10", password="x"), dict[str, Any])
assert_type(add.delay(1).cancel(), JobState)

add.delay("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
add.delay()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
add.options(queue="slow").delay(1, 2, 3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
report.delay("2026-10")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
add.options(colour="red")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
add.delay_on_commit("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
add.options(queue="slow").delay_on_commit()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
