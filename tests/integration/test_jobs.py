"""What a job does, with a real worker, in the prefork and in the threads pool."""

from __future__ import annotations

import contextlib
import typing as t

import pytest
from celery import chain, chord, group

from flask_offload import JobNotFound, JobState, UserError
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import Running


def test_result_record_and_celery_agree(running: Running) -> None:
    job = running.delay("add", 1, b=2)
    assert job.get(timeout=20) == 3
    record = job.record
    assert record.state is JobState.SUCCEEDED
    assert (record.result, job.state, job.result) == (3, "SUCCESS", 3)
    assert (record.title, record.args, record.kwargs) == ("Add 1 and 2", [1], {"b": 2})
    assert (record.attempt, record.deliveries, record.starts) == (1, 1, 1)
    assert record.created_at <= record.started_at <= record.finished_at
    assert record.queue == running.state.celery.conf.task_default_queue


def test_print_is_a_log_line(running: Running) -> None:
    job = running.delay("add", 1, 2)
    job.get(timeout=20)
    assert [line.text for line in job.logs()] == ["adding 1 2"]
    assert "adding 1 2" in running.system.workers[0].text


def test_progress_and_log_are_seen_while_it_runs(running: Running) -> None:
    job = running.delay("count", 20, 0.1)
    wait_until(lambda: job.progress.done >= 3)
    progress = job.progress
    assert (progress.total, progress.message) == (20, "Counting")
    assert job.record.state is JobState.RUNNING
    assert job.state == "STARTED"
    assert job.get(timeout=20) == "counted"
    assert job.progress.fraction == 1
    assert [line.text for line in job.logs()] == [f"step {n}" for n in range(20)]
    assert [line.seq for line in job.logs(after=15)] == [16, 17, 18, 19, 20]


def test_failure_after_retries_keeps_the_secret(running: Running) -> None:
    job = running.delay("log_in", "ada", password="hunter2")
    record = running.finished(job)
    assert record.state is JobState.FAILED
    assert (record.attempt, record.max_attempts, record.starts) == (3, 3, 3)
    assert record.error_type == "PermissionError"
    shown = repr(record) + repr(job.logs())
    assert "hunter2" not in shown
    assert record.error == "wrong password •••"
    assert record.args == ["ada"]
    assert record.kwargs == {"password": "•••"}
    with pytest.raises(PermissionError):
        job.get(timeout=5)
    # Nor do the worker's terminal and Celery's events tell.
    terminal = running.system.workers[0]
    wait_until(lambda: "PermissionError: wrong password •••" in terminal.text)
    assert "hunter2" not in terminal.text


def test_events_for_flower_tell_of_the_job_and_not_of_the_secret(running: Running) -> None:
    celery = running.state.celery
    seen: list[dict[str, t.Any]] = []
    with celery.connection_for_read() as connection:
        receiver = celery.events.Receiver(connection, handlers={"*": seen.append})
        with receiver.consumer_context(wakeup=False) as (drained, _, _):
            job = running.delay("log_in", "ada", password="hunter2")

            def failed() -> bool:
                with contextlib.suppress(TimeoutError):
                    drained.drain_events(timeout=0.2)
                return any(e["type"] == "task-failed" and e["uuid"] == job.id for e in seen)

            wait_until(failed, 20, message=lambda: repr(seen))
    mine = [event for event in seen if event.get("uuid") == job.id]
    types = {event["type"] for event in mine}
    assert types >= {"task-received", "task-started", "task-retried", "task-failed"}
    assert "hunter2" not in repr(mine)
    assert "•••" in repr(mine)


def test_user_error_is_not_tried_again(running: Running) -> None:
    job = running.delay("give_up")
    record = running.finished(job)
    assert (record.state, record.starts) == (JobState.FAILED, 1)
    assert record.user_error == "The month has no data yet."
    with pytest.raises(UserError):
        job.get(timeout=5)


def test_async_function(running: Running) -> None:
    job = running.delay("double", 21)
    assert job.get(timeout=20) == 42
    assert [line.text for line in job.logs()] == ["awaited"]


def test_result_that_is_not_json_fails_with_that_reason(running: Running) -> None:
    record = running.finished(running.delay("unserializable"))
    assert record.state is JobState.FAILED
    assert "result is not JSON" in record.error


def test_result_over_the_cap_fails_with_that_reason(running: Running) -> None:
    record = running.finished(running.delay("large", 1_000_001))
    assert record.state is JobState.FAILED
    assert "OFFLOAD_MAX_RESULT" in record.error


def test_app_context_is_fresh_for_a_job_and_shared_with_what_it_calls(running: Running) -> None:
    for _ in range(3):
        job = running.delay("context")
        expected = {"app": "sample", "fresh": True, "nested": True, "job": job.id}
        assert job.get(timeout=20) == expected


def test_shared_task_runs_in_the_app_that_enqueued_it(running: Running) -> None:
    with running.app.app_context():
        import sample

        job = sample.shared.delay()
    assert job.get(timeout=20) == "sample"
    assert running.finished(job).state is JobState.SUCCEEDED


def test_file(running: Running) -> None:
    job = running.delay("attach", "../../x.txt", "content")
    assert job.get(timeout=20) == {"name": "x.txt", "size": 7, "content_type": "text/plain"}
    with running.state.control.open_file(job.record, "x.txt")[1] as file:
        assert file.read() == b"content"


def test_cancel_of_a_scheduled_job(running: Running) -> None:
    job = running.tasks["sample.add"].options(delay=60).delay(1)
    assert job.record.state is JobState.SCHEDULED
    assert job.record.due_at == pytest.approx(job.record.created_at + 60, abs=0.01)
    assert job.cancel() is JobState.SCHEDULED
    assert (job.record.state, job.state) == (JobState.CANCELLED, "REVOKED")


def test_cancel_of_a_running_job(running: Running) -> None:
    job = running.delay("count", 400, 0.05)
    wait_until(lambda: job.progress.done >= 1)
    assert job.cancel() is JobState.RUNNING
    record = running.finished(job)
    assert record.state is JobState.CANCELLED
    assert record.progress.done < 100
    # The worker lives on.
    assert running.delay("add", 1, 2).get(timeout=20) == 3


def test_retry_runs_the_same_input_as_a_new_job(running: Running) -> None:
    job = running.delay("add", 5, b=6)
    job.get(timeout=20)
    again = job.retry()
    assert again.id != job.id
    assert again.get(timeout=20) == 11
    assert again.record.kwargs == {"b": 6}


def test_forms_of_the_end_without_a_result(running: Running) -> None:
    quiet = running.finished(running.delay("quiet"))
    assert (quiet.state, quiet.result) == (JobState.SUCCEEDED, None)
    assert running.finished(running.delay("ignored")).state is JobState.SUCCEEDED
    assert running.finished(running.delay("rejected")).state is JobState.FAILED


def test_canvas(running: Running) -> None:
    add = running.tasks["sample.add"]
    assert chain(add.s(1, 2), add.s(3)).apply_async().get(timeout=20) == 6
    assert group(add.s(i, i) for i in range(4)).apply_async().get(timeout=20) == [0, 2, 4, 6]
    total = chord([add.s(i, 1) for i in range(4)], running.tasks["sample.context"].si())
    assert total.apply_async().get(timeout=20)["app"] == "sample"
    job = running.delay("replaced", 1)
    assert job.get(timeout=20) == 11
    assert running.finished(job).task == "sample.add"


def test_what_a_job_enqueues_belongs_to_the_same_owner(running: Running) -> None:
    with running.app.test_request_context():
        job = running.delay("parent")
    assert job.owner
    child = running.state.celery.AsyncResult(job.get(timeout=20))
    assert child.owner == job.owner
    assert child.record.parent_id == job.id


def test_unknown_job(running: Running) -> None:
    with running.app.app_context():
        assert running.state.celery.AsyncResult("nope").state == "PENDING"
    with pytest.raises(JobNotFound):
        running.state.control.get("nope")


def test_same_id_twice_is_one_job(running: Running) -> None:
    add = running.tasks["sample.add"]
    first = add.apply_async((1, 2), task_id=f"own-{running.system.env['OFFLOAD_NAMESPACE']}")
    assert first.get(timeout=20) == 3
    second = add.apply_async((5, 5), task_id=first.id)
    assert second.get(timeout=20) == 3
    assert second.record.starts == 1


def test_many_at_once(running: Running) -> None:
    jobs = running.tasks["sample.add"].enqueue_many([(n, 1) for n in range(1_200)])
    assert [job.get(timeout=60) for job in jobs[::100]] == [n + 1 for n in range(0, 1_200, 100)]
    assert len({job.id for job in jobs}) == 1_200
    for job in jobs:
        assert job.get(timeout=60)
