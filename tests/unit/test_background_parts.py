"""Parts of background views that need neither server nor worker."""

from __future__ import annotations

import io
import typing as t
from pathlib import Path

import pytest
from flask import Flask, flash, get_flashed_messages, session
from flask.ctx import RequestContext
from flask.json.tag import TaggedJSONSerializer
from werkzeug.test import EnvironBuilder

from flask_offload import BackgroundError, PayloadTooLarge
from flask_offload._background.session import ReadOnlySession
from flask_offload._background.view import _preferences
from flask_offload._store import FileStore


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], {}),
        (["respond-async"], {"respond-async": 1}),
        (["Respond-Async, WAIT=10"], {"respond-async": 1, "wait": 10}),
        (["wait=5", "respond-async"], {"wait": 5, "respond-async": 1}),
        ([' wait = "7" ; x=1 , handling=lenient'], {"wait": 7}),
        # The first one counts.
        (["wait=1, wait=9"], {"wait": 1}),
        (["wait=-1"], {}),
        (["wait=soon, wait="], {}),
        (["wait=٣"], {}),
        (["wait=" + "9" * 5_000], {"wait": 999_999_999}),
    ],
)
def test_preferences(headers: list[str], found: dict[str, float]) -> None:
    app = Flask(__name__)
    with app.test_request_context(headers=[("Prefer", value) for value in headers]):
        assert _preferences() == found


def read_only(left_out: t.Sequence[str] = (), **values: t.Any) -> ReadOnlySession:
    tagged = {key: TaggedJSONSerializer().dumps(value) for key, value in values.items()}
    return ReadOnlySession({"values": tagged, "left_out": list(left_out)})


def test_a_session_is_read() -> None:
    kept = read_only(a=1, b=(1, 2), _permanent=True)
    assert (kept["a"], kept.get("b"), kept.get("c", 3)) == (1, (1, 2), 3)
    assert "a" in kept
    assert "c" not in kept
    assert kept.permanent
    assert not kept.modified
    assert kept.setdefault("a", 5) == 1
    with pytest.raises(KeyError):
        kept["c"]


@pytest.mark.parametrize(
    "write",
    [
        lambda s: s.__setitem__("a", 2),
        lambda s: s.update(a=2),
        lambda s: s.update({"b": 2}),
        lambda s: s.setdefault("b", 2),
        lambda s: s.pop("a"),
        lambda s: s.popitem(),
        lambda s: s.clear(),
        lambda s: s.__delitem__("a"),
        lambda s: s.__ior__({"a": 2}),
        lambda s: setattr(s, "permanent", True),
        lambda s: setattr(s, "modified", True),
    ],
)
def test_a_session_is_not_written(write: t.Callable[[t.Any], object]) -> None:
    kept = read_only(a=1)
    with pytest.raises(BackgroundError, match="cannot be changed in a background view"):
        write(kept)
    assert dict(kept) == {"a": 1}


def test_a_value_that_did_not_travel_says_so() -> None:
    kept = read_only(["cart"], a=1)
    for look in (lambda: kept["cart"], lambda: kept.get("cart"), lambda: "cart" in kept):
        with pytest.raises(BackgroundError, match="'cart'.* is not JSON"):
            look()


def test_messages_are_flashed_and_shown() -> None:
    app = Flask(__name__)
    context = RequestContext(app, EnvironBuilder().get_environ(), session=read_only(a=1))
    with context:
        flash("one", "good")
        assert t.cast("ReadOnlySession", context.session).flashes == [("good", "one")]
        assert session["a"] == 1
        assert get_flashed_messages() == ["one"]
        assert t.cast("ReadOnlySession", context.session).flashes == []


def test_private_files(tmp_path: Path) -> None:
    files = FileStore(str(tmp_path), 10)
    assert files.keep("job", "body", b"abc", 10) == files.keep("job", "b", io.BytesIO(b"abc"), 10)
    with files.kept("job", "body") as stream:
        assert stream.read() == b"abc"
    for name in ("body", ".private/body", "../.private/body"):
        with pytest.raises(FileNotFoundError):
            files.open("job", name)
    with pytest.raises(FileNotFoundError):
        files.kept("job", "other")
    with pytest.raises(PayloadTooLarge):
        files.keep("job", "body", b"x" * 11, 10)
    # A file of that name is offered, and is another one.
    files.save("job", ".private", b"shown")
    files.remove("job")
    assert list(tmp_path.iterdir()) == []
