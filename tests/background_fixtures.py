"""The fixtures of the tests of background views; a module asks for them by ``pytest_plugins``."""

from __future__ import annotations

import typing as t

import pytest

import servers
from background import Views, Visitor, working


@pytest.fixture(scope="module")
def views(valkey: servers.Valkey, tmp_path_factory: t.Any) -> t.Iterator[Views]:
    with working(tmp_path_factory.mktemp("background"), valkey.url) as views:
        with pytest.MonkeyPatch.context() as patch:
            for key in ("LEDGER", "GATES"):
                patch.setenv(key, views.env[key])
            yield views


@pytest.fixture
def visitor(views: Views) -> Visitor:
    return views.visitor()
