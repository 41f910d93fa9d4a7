"""The tutorial's pages and forms over HTTP, without a worker."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import date
from email.message import EmailMessage
from pathlib import Path

import pytest

from tutorial import Person, copy_to, text_of, web

import outbox  # isort: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_to(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with web(folder, DEMO_SECONDS="1") as address:
        yield address


@pytest.fixture
def person(address: str) -> Iterator[Person]:
    with Person(address) as person:
        yield person


def test_hello_leads_to_the_tasks(person: Person) -> None:
    page = person.get("/")
    assert page.status_code == 200
    assert "Hello, World!" in text_of(page.text)
    assert 'href="/tasks"' in page.text


def test_tasks_offers_buttons_forms_and_the_list(person: Person) -> None:
    page = person.get("/tasks")
    assert page.status_code == 200
    text = text_of(page.text)
    assert "Trigger Long Running Task " in text
    assert "Trigger Long Running Task with Celery" in text
    assert "Trigger Long Running Task in the Background" in text
    buttons = ("/long_running_task", "/long_running_task_celery", "/long_running_task_background")
    for path in buttons:
        assert f'href="{path}"' in page.text
    for path in ("/signup", "/report", "/quote"):
        assert f'method="post" action="{path}"' in page.text
    assert "No jobs yet" in text


@pytest.mark.parametrize("path", ["/", "/tasks", "/outbox"])
def test_pages_load_nothing_from_elsewhere(person: Person, path: str) -> None:
    page = person.get(path)
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert links
    for link in links:
        assert link.startswith(("/", "#")), link
        if not link.startswith(("#", "/long_running")):
            assert person.get(link).status_code == 200, link
    assert not re.search(r"<script(?![^>]*\bsrc=)", page.text)
    ids = re.findall(r'\sid="([^"]+)"', page.text)
    assert len(ids) == len(set(ids))


def test_long_running_task_blocks_the_request(person: Person) -> None:
    started = time.monotonic()
    page = person.get("/long_running_task")
    assert time.monotonic() - started >= 1
    assert page.text == "The task completed in 1 seconds!"


def test_celery_answers_at_once(person: Person) -> None:
    started = time.monotonic()
    page = person.get("/long_running_task_celery")
    assert time.monotonic() - started < 1
    assert "Long running task triggered with Celery!" in text_of(page.text)
    link = re.search(r'href="(/jobs/[^"]+)"', page.text)
    assert link
    person.read(link[1])


@pytest.mark.parametrize("path", ["/signup", "/report", "/quote"])
def test_new_work_starts_by_post_only(person: Person, path: str) -> None:
    assert person.get(path).status_code == 405


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/signup", {"name": "Ada", "email": "ada@example.org"}),
        ("/report", {"month": "2026-03", "size": "2"}),
        ("/quote", {"symbol": "ACME"}),
    ],
)
def test_forms_lead_to_the_job(person: Person, path: str, fields: dict[str, str]) -> None:
    answer = person.fill(path, **fields)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/jobs/")
    person.read(answer.headers["Location"])


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/signup", {"name": "Ada", "email": "ada@example.org"}),
        ("/report", {"month": "2026-03", "size": "2"}),
        ("/quote", {"symbol": "ACME"}),
    ],
)
@pytest.mark.parametrize("token", ["", "forged"])
def test_forms_need_the_token(
    person: Person, path: str, fields: dict[str, str], token: str
) -> None:
    person.get("/tasks")
    answer = person.post(path, data={"csrf_token": token, **fields})
    assert answer.status_code == 400
    assert "Send the form again" in text_of(answer.text)
    assert "No jobs yet" in text_of(answer.text)
    # What was typed is not lost.
    for value in fields.values():
        assert f'value="{value}"' in answer.text


def month_from_now(months: int) -> str:
    year, month = divmod(date.today().year * 12 + date.today().month - 1 + months, 12)
    return f"{year}-{month + 1:02}"


SIGNUP = {"name": "Ada", "email": "ada@example.org"}
REPORT = {"month": "2026-03", "size": "2"}
BAD = [
    ("/signup", SIGNUP | {"name": ""}, "Name", "Enter your name."),
    ("/signup", SIGNUP | {"name": "   "}, "Name", "Enter your name."),
    ("/signup", SIGNUP | {"name": "x" * 81}, "Name", "at most 80"),
    ("/signup", SIGNUP | {"name": "Ada\nBcc: eve"}, "Name", "control characters"),
    ("/signup", SIGNUP | {"name": "Ada\0"}, "Name", "control characters"),
    *(
        ("/signup", SIGNUP | {"email": email}, "E-mail", "like ada@example.org")
        for email in (
            "",
            "ada",
            "ada@",
            "@example.org",
            "ada@example",
            "ada@localhost",
            "ada@example.org, eve@example.org",
            "ada@example.org\r\nBcc: eve@example.org",
            "ada\0@example.org",
            "grüße@example.org",
            f"{'a' * 300}@example.org",
            "<ada@example.org>",
        )
    ),
    *(
        ("/report", REPORT | {"month": month}, "Month", "Enter a year and a month, like 2026-10.")
        for month in ("", "March", "2026", "2026-13", "2026-00", "2026-03-01", "../../etc/passwd")
    ),
    *(
        ("/report", REPORT | {"month": month}, "Month", "Enter a month from 2020-01 to")
        for month in ("2019-12", "0001-01", "9999-12", month_from_now(1))
    ),
    *(
        ("/report", REPORT | {"size": size}, "Pages", "from 1 to 50")
        for size in ("", "0", "-1", "51", "2.5", "ten", "1e1", "9" * 5000)
    ),
    *(
        ("/quote", {"symbol": symbol}, "Share", "like ACME")
        for symbol in ("", "AC ME", "../admin", "ACME?x=1", "ACMEACMEX", "http://10.0.0.1/", "A\nB")
    ),
]


@pytest.mark.parametrize(
    ("path", "fields", "label", "error"),
    BAD,
    ids=[f"{path[1:]} {number}" for number, (path, *_) in enumerate(BAD)],
)
def test_bad_input_names_the_field(
    person: Person, path: str, fields: dict[str, str], label: str, error: str
) -> None:
    answer = person.fill(path, **fields)

    assert answer.status_code == 400
    text = text_of(answer.text)
    assert re.search(rf"This was not sent {label}: [^:]*{re.escape(error)}", text), text
    field = re.search(r"<input[^>]*is-invalid[^>]*>", answer.text)
    assert field
    assert 'aria-invalid="true"' in field[0]
    described = re.search(r'aria-describedby="([^"]+)"', field[0])
    assert described
    assert f'id="{described[1]}"' in answer.text
    assert answer.text.count("is-invalid") == 1
    assert "No jobs yet" in text


@pytest.mark.parametrize("month", ["2020-01", month_from_now(0)])
@pytest.mark.parametrize("size", ["1", "50"])
def test_first_and_last_month_and_size(person: Person, month: str, size: str) -> None:
    assert person.fill("/report", month=month, size=size).status_code == 303


def test_input_comes_back_as_text(person: Person) -> None:
    answer = person.fill("/signup", name='"><script>alert(1)</script>', email="bad")
    assert answer.status_code == 400
    assert "<script>alert" not in answer.text


def test_outbox_says_how_to_fill_it(person: Person) -> None:
    assert "No mail yet" in text_of(person.get("/outbox").text)


def test_outbox_shows_mail_as_text(person: Person, folder: Path) -> None:
    mail = EmailMessage()
    mail["From"] = "Ada <ada@example.org>"
    mail["To"] = "bob@example.org"
    mail["Subject"] = "<script>alert('subject')</script>"
    mail.set_content("<img src=x onerror=alert('text')>\nSecond line\n")
    box = folder / "instance" / "outbox"
    outbox.save(box, bytes(mail))
    try:
        page = person.get("/outbox").text
    finally:
        for path in box.iterdir():
            path.unlink()

    assert "<script>alert" not in page
    assert "<img" not in page
    text = text_of(page)
    assert "Ada <ada@example.org>" in text
    assert "bob@example.org" in text
    assert "<script>alert('subject')</script>" in text
    assert "Second line" in text


def test_secret_key_is_kept_private(person: Person, folder: Path) -> None:
    person.get("/tasks")
    assert (folder / "instance" / "secret_key").stat().st_mode & 0o777 == 0o600
