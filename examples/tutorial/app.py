"""The tutorial's app on Flask-Offload: three buttons, three forms, and what they started.

``make demo`` starts all of it. By hand, in three terminals, as the tutorial does:

    FLASK_APP=app python -m flask run
    celery -A app.celery worker --loglevel=info
    python services.py                             # the mail server and the API that it talks to
"""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path
from typing import Any

from flask import Flask, redirect, render_template
from flask.typing import ResponseReturnValue
from flask_bootstrap import Bootstrap5
from flask_mailman import Mail

import outbox
import quote
import report
import settings
import welcome
from flask_offload import Offload, UserError, current_job
from forms import QuoteForm, ReportForm, SignupForm

app = Flask(__name__)
app.config.from_mapping(settings.from_environ(app.instance_path))
Bootstrap5(app)
Mail(app)
offload = Offload(app)
celery = offload.celery

SECONDS: int = app.config["DEMO_SECONDS"]


# The work. Each function below runs in the worker, inside the app context.


@celery.task
def sending_email_with_celery() -> None:
    print("Executing Long running task : Sending email with celery...")
    for _ in current_job.track(range(SECONDS), "Sending email"):
        time.sleep(1)
    print("Task complete!")


@offload.task(
    title="Welcome e-mail for {name}",
    sensitive=("email",),
    autoretry_for=(welcome.NotNow,),
    retry_backoff=True,
    max_retries=4,
)
def send_welcome(name: str, email: str) -> str:
    # A job runs again when its worker dies. The same Message-ID makes the second mail of one
    # job a duplicate that mailboxes can recognise.
    welcome.send(name, email, message_id=f"<{current_job.id}@tutorial.example.org>")
    return "The welcome e-mail has been sent."


@offload.task(title="Report for {month}")
def build_report(month: str, size: int) -> dict[str, Any]:
    first_day = date.fromisoformat(f"{month}-01")
    if first_day > date.today():
        raise UserError("The month has no data yet.")  # what the person waiting reads
    pdf = report.build(first_day, size, current_job.progress)
    return current_job.attach(f"report-{month}.pdf", pdf)


@offload.task(
    title="Quote for {symbol}",
    autoretry_for=(quote.NoAnswer,),
    retry_backoff=True,  # 1 s, 2 s, 4 s … each time a random part of it (retry_jitter)
    retry_jitter=True,
    max_retries=5,
    repeatable=True,  # a button on the job page asks for it once more
)
def get_quote(symbol: str) -> dict[str, Any]:
    current_job.progress(0, message="Asking the exchange")
    return quote.fetch_quote(
        app.config["QUOTE_API_URL"], symbol, origins=app.config["QUOTE_ORIGINS"]
    )


# The pages.


@app.get("/")
def hello() -> str:
    return render_template("hello.html")


@app.get("/tasks")
def tasks() -> str:
    return tasks_page()


@app.get("/long_running_task")
def long_running_task() -> str:
    print(f"This task will take {SECONDS} seconds to complete...")
    time.sleep(SECONDS)
    return f"The task completed in {SECONDS} seconds!"


@app.get("/long_running_task_celery")
def long_running_task_celery() -> str:
    job = sending_email_with_celery.delay()
    return render_template("triggered.html", job=job)


@app.get("/long_running_task_background")
@offload.background  # the slow view from above, in the worker
def long_running_task_background() -> str:
    print(f"This task will take {SECONDS} seconds to complete...")
    time.sleep(SECONDS)
    return f"The task completed in {SECONDS} seconds!"


@app.post("/signup")
def signup() -> ResponseReturnValue:
    form = SignupForm()
    if not form.validate_on_submit():
        return tasks_page(signup=form), 400
    return redirect(send_welcome.delay(form.name.data, form.email.data).url, 303)


@app.post("/report")
def start_report() -> ResponseReturnValue:
    form = ReportForm()
    if not form.validate_on_submit():
        return tasks_page(report=form), 400
    return redirect(build_report.delay(f"{form.month.data:%Y-%m}", form.size.data).url, 303)


@app.post("/quote")
def start_quote() -> ResponseReturnValue:
    form = QuoteForm()
    if not form.validate_on_submit():
        return tasks_page(quote=form), 400
    return redirect(get_quote.delay(form.symbol.data).url, 303)


@app.get("/outbox")
def show_outbox() -> str:
    return render_template("outbox.html", mails=outbox.read(Path(app.config["OUTBOX_DIR"])))


def tasks_page(**sent: Any) -> str:
    """The page with the buttons and forms, where ``sent`` is the form to correct."""
    # Only the form that was sent may read the request: they share it.
    forms = {
        "signup": SignupForm(formdata=None),
        "report": ReportForm(formdata=None),
        "quote": QuoteForm(formdata=None),
    }
    return render_template("tasks.html", forms=forms | sent, seconds=SECONDS)
