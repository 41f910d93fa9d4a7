"""The fixtures of the tests of the web pages; a module asks for them by ``pytest_plugins``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import Valkey
from web_app import Site


@pytest.fixture
def site(valkey: Valkey, tmp_path: Path) -> Iterator[Site]:
    site = Site(valkey.url, tmp_path)
    site.worker()
    with site.served():
        yield site
