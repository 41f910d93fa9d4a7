"""What a type checker knows of a decorated function. Checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import Any, assert_type

from flask import Flask

from flask_offload import Job, JobRecord, JobState, Offload, current_job

offload = Offload(Flask(__name__))


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


assert_type(add(1, b=2), int)
assert_type(fetch("x"), bytes)
assert_type(add.delay(1), Job)
assert_type(add.options(queue="slow", delay=3).delay(1, 2), Job)
assert_type(report.delay("2026-10", password="x").record, JobRecord)
assert_type(report("2026-10", password="x"), dict[str, Any])
assert_type(add.delay(1).cancel(), JobState)

add.delay("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
add.delay()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
add.options(queue="slow").delay(1, 2, 3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
report.delay("2026-10")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
add.options(colour="red")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
