"""``flask offload jobs``"""

from __future__ import annotations

import time

import click
from flask.cli import AppGroup

from ..exceptions import JobNotFound, ServerError
from .worker import state

__all__ = ["jobs"]

jobs = AppGroup("jobs", help="Look at jobs, cancel them, run them again.")


@jobs.command("list")
@click.option("--limit", default=20, show_default=True, help="How many, the newest first.")
def list_jobs(limit: int) -> None:
    """List the newest jobs."""
    try:
        records = state().control.newest(limit=limit)
    except ServerError as error:
        raise click.ClickException(str(error)) from error
    if not records:
        click.echo("No jobs yet.")
    for record in records:
        age = max(0, int(time.time() - record.created_at))
        click.echo(f"{record.state:<10} {record.id:<36.36} {age:>6} s  {record.title:.22}")


@jobs.command("cancel")
@click.argument("job_id")
def cancel(job_id: str) -> None:
    """Cancel a job."""
    try:
        before = state().control.cancel(job_id, by="operator")
    except (JobNotFound, ServerError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"It is {before} and stays so." if before.finished else f"Cancelled; it was {before}."
    )


@jobs.command("retry")
@click.argument("job_id")
def retry(job_id: str) -> None:
    """Run a job again with the same input, as a new job."""
    try:
        job = state().control.retry(job_id)
    except (JobNotFound, ServerError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(job.id)
