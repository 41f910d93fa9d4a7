"""axe-core in a page: what keeps people from using it."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from playwright.sync_api import Page

SCRIPT = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
HOW_TO_GET_IT = "axe-core is missing. Install it: npm ci --prefix tests"


def violations(page: Page) -> list[str]:
    """What is wrong with the page, a line each; all of it, not only what is serious."""
    if not SCRIPT.exists():
        if os.environ.get("CI"):
            pytest.fail(HOW_TO_GET_IT)
        pytest.skip(HOW_TO_GET_IT)
    if not page.evaluate("'axe' in window"):
        # By the debugger, as the policy of the page lets no foreign script in.
        page.evaluate(SCRIPT.read_text("utf-8"))
    found: list[dict[str, t.Any]] = page.evaluate(
        "async () => (await axe.run({iframes: false})).violations"
    )
    return [
        f"{each['impact']}: {each['id']}: {each['help']}: {[n['html'] for n in each['nodes']]}"
        for each in found
    ]
