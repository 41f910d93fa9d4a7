"""Takes the pictures of the docs, off the running demo.

DEMO_SECONDS=8 make demo                       # in one terminal
.venv/bin/python docs/screenshots.py http://127.0.0.1:5000
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def take(page: Page, name: str, height: int | None = None) -> None:
    # Long enough for a bar to have moved to where it says it is; nothing else is waited for.
    page.wait_for_timeout(400)
    size = page.viewport_size or {"width": 720, "height": 640}
    if height is None:
        height = min(int(page.evaluate("document.documentElement.scrollHeight")), 1400)
    clip = {"x": 0, "y": 0, "width": size["width"], "height": height}
    page.screenshot(path=IMAGES / f"{name}.png", full_page=True, clip=clip)  # type: ignore[arg-type]


def line(page: Page, base: str) -> None:
    """A job in line, once it is known how long such a job takes."""
    for _ in range(3):
        page.goto(f"{base}/long_running_task_celery")
    page.goto(f"{base}/tasks")
    page.locator("[data-state=succeeded]").nth(2).wait_for(timeout=60_000)
    for _ in range(9):
        page.goto(f"{base}/long_running_task_celery")
    page.get_by_role("link", name="See how far it is").click()
    page.get_by_text(re.compile(r"\dth in line, about|[23].d in line, about")).wait_for()
    take(page, "job-waiting")
    page.get_by_text("Done in").wait_for(timeout=60_000)


def phone(page: Page, base: str) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    page.goto(f"{base}/long_running_task_celery")
    page.get_by_role("link", name="See how far it is").click()
    page.get_by_text("3 of").wait_for()
    page.get_by_text("Log", exact=False).first.click()
    take(page, "job-phone")
    page.set_viewport_size({"width": 720, "height": 640})


def pictures(page: Page, base: str) -> None:
    line(page, base)
    page.goto(f"{base}/long_running_task_celery")
    page.get_by_role("link", name="See how far it is").click()
    page.get_by_text("2 of").wait_for()
    take(page, "job-running")
    page.emulate_media(color_scheme="dark")
    take(page, "job-running-dark")
    page.emulate_media(color_scheme="light")

    page.goto(f"{base}/tasks")
    page.locator("#month").fill("2026-10")
    page.locator("#size").fill("8")
    page.get_by_role("button", name="Make the report").click()
    page.get_by_text("Done in").wait_for()
    page.wait_for_timeout(2_000)  # the browser's own viewer says nothing when it has drawn
    take(page, "job-done")

    page.goto(f"{base}/tasks")
    page.locator("#symbol").fill("ACME")
    page.get_by_role("button", name="Get the quote").click()
    page.get_by_text("Done in").wait_for(timeout=60_000)
    take(page, "job-result")

    page.goto(f"{base}/tasks")
    page.locator("#symbol").fill("NOPE")
    page.get_by_role("button", name="Get the quote").click()
    page.locator("[data-state=failed]").first.wait_for(timeout=60_000)
    take(page, "job-failed")
    phone(page, base)

    page.goto(f"{base}/long_running_task_celery")
    page.goto(f"{base}/tasks")
    page.set_viewport_size({"width": 1000, "height": 900})
    take(page, "tasks")


def main() -> None:
    base = sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://127.0.0.1:5000"
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 720, "height": 640}, device_scale_factor=1.5)
        pictures(page, base)
        browser.close()


if __name__ == "__main__":
    main()
