"""The fixtures of tests of the job page with a real worker; a module asks for them by
``pytest_plugins``, besides those of ``web_fixtures``."""

from __future__ import annotations

import secrets
import typing as t
from collections.abc import Iterator

import pytest

import servers
from page_app import Pages


@pytest.fixture(scope="module")
def pages(valkey: servers.Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """The app, with a worker of one slot, so that who comes second has to wait."""
    pages = Pages(tmp_path_factory.mktemp("pages"), valkey.url, f"t{secrets.token_hex(4)}")
    try:
        with pages.served():
            pages.worker("threads", 1)
            yield pages
    finally:
        pages.close()


@pytest.fixture
def own_pages(valkey: servers.Valkey, tmp_path: t.Any) -> Iterator[Pages]:
    """The app for one test, without a worker yet."""
    pages = Pages(tmp_path, valkey.url, f"t{secrets.token_hex(4)}")
    try:
        with pages.served():
            yield pages
    finally:
        pages.close()
