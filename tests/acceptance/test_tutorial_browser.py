"""The tutorial in a real browser: press, watch it move, see what came of it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pypdf
import pytest
from playwright.sync_api import Page, expect

from servers import free_port
from tutorial import copy_to, web, worker
from waiting import wait_until

pytest_plugins = ["web_fixtures"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_to(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with web(folder, DEMO_SECONDS="4") as address, worker(folder, DEMO_SECONDS="4"):
        yield address


def test_celery_button_shows_the_job_move_and_end_without_a_reload(
    page: Page, address: str
) -> None:
    page.goto(f"{address}/tasks")
    page.get_by_role("link", name="Trigger Long Running Task with Celery").click()
    expect(page.get_by_text("Long running task triggered with Celery!")).to_be_visible()
    page.get_by_role("link", name="See how far it is").click()
    page.evaluate("window.untouched = true")
    expect(page.get_by_text("Sending email", exact=True)).to_be_visible()
    expect(page.get_by_text("1 of 4")).to_be_visible()
    expect(page.get_by_text("2 of 4")).to_be_visible()
    expect(page.get_by_text("Done in")).to_be_visible(timeout=20_000)
    page.locator("[data-part=log] summary").click()
    expect(page.get_by_text("Task complete!")).to_be_visible()
    assert page.evaluate("window.untouched"), "the page was loaded again"


def test_report_is_a_pdf_that_opens(page: Page, address: str) -> None:
    page.goto(f"{address}/tasks")
    page.locator("#month").fill("2026-10")
    page.locator("#size").fill("7")
    page.get_by_role("button", name="Make the report").click()
    link = page.get_by_role("link", name="report-2026-10.pdf")
    expect(link).to_be_visible(timeout=20_000)
    # Fetched by the browser, with its cookies.
    answer = page.request.get(f"{address}{link.get_attribute('href')}")
    assert answer.headers["content-type"] == "application/pdf"
    pdf = pypdf.PdfReader(io.BytesIO(answer.body()))
    assert len(pdf.pages) == 7
    assert "October 2026" in pdf.pages[0].extract_text()


def test_list_of_jobs_moves_too(page: Page, address: str) -> None:
    page.goto(f"{address}/long_running_task_celery")
    page.goto(f"{address}/tasks")
    row = page.locator("offload-jobs li").first
    expect(row).to_contain_text("Sending email")
    expect(row).to_contain_text("Done", timeout=20_000)


def test_stop_button_stops_the_job(page: Page, address: str) -> None:
    page.goto(f"{address}/long_running_task_celery")
    page.get_by_role("link", name="See how far it is").click()
    expect(page.get_by_text("1 of 4")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped by you")).to_be_visible()


def test_worker_killed_in_the_middle(page: Page, tmp_path: Path) -> None:
    """The page says that the worker stopped answering; the job runs again after the lease."""
    folder = copy_to(tmp_path)
    app = folder / "app.py"
    here = "Bootstrap5(app)\n"
    app.write_text(app.read_text().replace(here, f'app.config["OFFLOAD_LEASE"] = 4\n{here}', 1))
    with contextlib.ExitStack() as stack:
        env = {"DEMO_SECONDS": "5"}
        address = stack.enter_context(web(folder, **env))
        first = stack.enter_context(worker(folder, **env))
        page.goto(f"{address}/long_running_task_celery")
        page.get_by_role("link", name="See how far it is").click()
        expect(page.get_by_text("1 of 5")).to_be_visible()
        os.killpg(first.process.pid, signal.SIGKILL)
        wait_until(lambda: first.process.poll() is not None)
        expect(page.get_by_text("stopped answering")).to_be_visible(timeout=25_000)
        stack.enter_context(worker(folder, **env))
        expect(page.get_by_text("Done in")).to_be_visible(timeout=40_000)


def test_web_server_restarted_in_the_middle(page: Page, tmp_path: Path) -> None:
    """The page says that nobody answers, and comes back by itself; the job goes on meanwhile."""
    folder, port = copy_to(tmp_path), free_port()
    with worker(folder, DEMO_SECONDS="12"):
        with web(folder, port, DEMO_SECONDS="12") as address:
            page.goto(f"{address}/long_running_task_celery")
            page.get_by_role("link", name="See how far it is").click()
            page.evaluate("window.untouched = true")
            expect(page.get_by_text("1 of 12")).to_be_visible()
        expect(page.get_by_text("Connection lost. Trying again…")).to_be_visible(timeout=15_000)
        with web(folder, port, DEMO_SECONDS="12"):
            expect(page.get_by_text("Connection lost.")).to_be_hidden(timeout=40_000)
            expect(page.get_by_text("Done in")).to_be_visible(timeout=40_000)
            page.locator("[data-part=log] summary").click()
            lines = page.locator(".offload-log li span")
            expect(lines).to_have_text(
                ["Executing Long running task : Sending email with celery...", "Task complete!"]
            )
            assert page.evaluate("window.untouched"), "the page was loaded again"
