"""The tutorial's work, done by a real worker, with a real mail server and a real flaky API."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import time
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import NamedTuple

import pypdf
import pytest

import servers
from tutorial import Person, Program, copy_to, text_of, web, worker

import services  # isort: skip


class Site(NamedTuple):
    address: str
    worker: Program
    outbox: Path


@pytest.fixture(scope="module", params=["embedded server", "Redis"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = copy_to(tmp_path_factory.mktemp("jobs"))
    outbox = folder / "instance" / "outbox"
    with contextlib.ExitStack() as stack:
        env = {
            "DEMO_SECONDS": "1",
            "MAIL_SERVER": "127.0.0.1",
            "MAIL_PORT": str(stack.enter_context(services.smtp_sink(outbox))),
            "QUOTE_API_URL": stack.enter_context(services.flaky_api()),
        }
        if request.param == "Redis":
            binary = shutil.which("redis-server")
            if not binary:
                pytest.skip("needs a real Redis: apt-get install redis-server")
            env["OFFLOAD_URL"] = stack.enter_context(servers.valkey(binary=binary)).url
        address = stack.enter_context(web(folder, **env))
        running_worker = stack.enter_context(worker(folder, **env))
        yield Site(address, running_worker, outbox)


@pytest.fixture
def person(site: Site) -> Iterator[Person]:
    with Person(site.address) as person:
        yield person


def test_celery_button_runs_the_tutorials_task(person: Person, site: Site) -> None:
    page = person.get("/long_running_task_celery")
    link = re.search(r'href="(/jobs/[^"]+)"', page.text)
    assert link

    person.wait_for_job(link[1])

    for line in (
        "Executing Long running task : Sending email with celery...",
        "Task complete!",
    ):
        assert line in site.worker.said
        assert line in person.read(link[1])


def test_background_button_answers_as_the_first_one(person: Person, site: Site) -> None:
    answer = person.get("/long_running_task_background")
    assert answer.status_code == 303
    url = person.get(answer.headers["Location"]).headers["Location"]

    job = person.wait_for_job(f"{url}?format=json")

    assert job["title"] == "Long running task background"
    assert person.get(url, follow_redirects=True).text == "The task completed in 1 seconds!"
    assert "This task will take 1 seconds to complete..." in site.worker.said


def test_pages_answer_while_tasks_run(person: Person) -> None:
    links = [
        re.search(r'href="(/jobs/[^"]+)"', person.get("/long_running_task_celery").text)
        for _ in range(5)
    ]
    started = time.monotonic()
    assert person.get("/").status_code == 200
    assert time.monotonic() - started < 0.5
    for link in links:
        assert link
        person.wait_for_job(link[1])


def test_signup_sends_the_mail(person: Person, site: Site) -> None:
    started = time.monotonic()
    answer = person.fill("/signup", name="Grace <b>Hopper</b>", email="grace@example.org")
    assert answer.status_code == 303

    person.wait_for_job(answer.headers["Location"])

    print(f"mail sent after {time.monotonic() - started:.2f} s")
    mails = [message_from_bytes(p.read_bytes(), policy=default) for p in site.outbox.glob("*.eml")]
    (mail,) = (mail for mail in mails if mail["To"] == "grace@example.org")
    assert mail["From"] == "tutorial@example.org"
    assert mail["Subject"] == "Welcome"
    assert "Hello Grace <b>Hopper</b>," in mail.get_content()
    page = person.get("/outbox").text
    assert "<b>Hopper" not in page
    assert "Hello Grace <b>Hopper</b>," in text_of(page)


def test_signup_keeps_the_address_to_itself(person: Person) -> None:
    answer = person.fill("/signup", name="Ada", email="secret.ada@example.org")
    person.wait_for_job(answer.headers["Location"])
    assert "secret.ada" not in str(person.job(answer.headers["Location"]))
    assert "secret.ada" not in person.read(answer.headers["Location"])


def test_report_is_a_pdf_on_the_job_page(person: Person) -> None:
    answer = person.fill("/report", month="2026-03", size="4")
    url = answer.headers["Location"]

    person.wait_for_job(url)

    assert "Report for 2026-03" in person.read(url)
    page = person.get(url.partition("?")[0]).text
    link = re.search(r'href="(/jobs/[^"]+/files/report-2026-03\.pdf[^"]*)"', page)
    assert link, page
    file = person.get(link[1])
    assert file.status_code == 200
    assert file.headers["Content-Type"] == "application/pdf"
    reader = pypdf.PdfReader(io.BytesIO(file.content))
    assert len(reader.pages) == 4
    assert "Shop 4: orders in March 2026" in reader.pages[3].extract_text()


def test_report_is_for_its_owner_only(person: Person, site: Site) -> None:
    answer = person.fill("/report", month="2026-03", size="1")
    url = answer.headers["Location"].partition("?")[0]
    person.wait_for_job(url)
    with Person(site.address) as stranger:
        assert stranger.get(url).status_code == 404
        assert stranger.get(f"{url}/files/report-2026-03.pdf").status_code == 404


def test_quote_survives_the_flaky_api(person: Person) -> None:
    answer = person.fill("/quote", symbol=" acme ")
    url = answer.headers["Location"]

    job = person.wait_for_job(url)

    assert job["result"]["symbol"] == "ACME"
    assert job["result"]["currency"] == "EUR"
    assert 100 < job["result"]["price"] < 130
    page = person.read(url)
    assert "Quote for ACME" in page
    assert str(job["result"]["price"]) in page


def test_quote_of_an_unknown_share_says_so(person: Person) -> None:
    answer = person.fill("/quote", symbol="NOPE")

    person.wait_for_job(answer.headers["Location"], state="failed")

    assert "The exchange does not know this share." in person.read(answer.headers["Location"])


def test_tasks_lists_what_this_browser_started(person: Person, site: Site) -> None:
    answer = person.fill("/report", month="2026-04", size="1")
    person.wait_for_job(answer.headers["Location"])
    assert "Report for 2026-04" in person.read("/tasks")
    with Person(site.address) as stranger:
        assert "Report for 2026-04" not in stranger.read("/tasks")
