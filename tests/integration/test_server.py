"""The life of an embedded server: with real processes, that are really killed."""

from __future__ import annotations

import os
import random
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from embedded import Place, Places, kill, open_places
from flask_offload._server import EmbeddedServer
from waiting import wait_until


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    with open_places(tmp_path) as make:
        yield make


@pytest.fixture
def place(places: Places) -> Place:
    return places()


def test_nothing_starts_before_the_first_use(place: Place) -> None:
    assert place.server.url == f"unix://{place.server.directory}/valkey.sock"
    assert place.server.pids() == (None, None)
    assert not place.server.directory.exists()


def test_second_process_joins_the_server_of_the_first(place: Place) -> None:
    one, two = place.user(), place.user()
    assert one("ensure") == "None"
    assert one("call SET name value") == "+OK"
    before = place.server.pids()
    assert two("ensure") == "None"
    assert two("call GET name") == "value"
    assert place.server.pids() == before
    assert len(place.processes()) == 2


def test_server_is_private_and_durable(place: Place) -> None:
    place.user()("ensure")
    for path in (place.server.directory, place.server.socket_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    with redis.Redis.from_url(place.server.url, decode_responses=True) as client:
        set_to = client.config_get()
    assert (
        set_to.items()
        >= {
            "port": "0",
            "appendonly": "yes",
            "appendfsync": "no",
            "maxmemory-policy": "noeviction",
            "save": "",
            "hash-max-listpack-value": "2048",
        }.items()
    )


def test_server_stops_after_the_linger_time_and_keeps_its_data(place: Place) -> None:
    user = place.user()
    user("ensure")
    user("call SET name value")
    first = place.server.pids()
    user.kill()
    place.wait_until_gone()
    later = place.user()
    assert later("safely GET name") == "value"
    assert place.server.pids() != first


def test_release_gives_up_the_share(place: Place) -> None:
    user = place.user()
    user("ensure")
    user("release")
    place.wait_until_gone()
    assert user("safely PING") == "+PONG"


def test_linger_time_begins_when_the_last_user_goes(places: Places) -> None:
    place = places(linger=0.5)
    one, two = place.user(), place.user()
    one("ensure")
    two("ensure")
    before = place.server.pids()
    one.kill()
    three = place.user()
    three("ensure")
    two.kill()
    # Longer than the linger time, in which the lock is looked at many times.
    with pytest.raises(AssertionError):
        place.wait_until_gone(0.8)
    assert three("call PING") == "+PONG"
    assert place.server.pids() == before


def test_child_of_a_fork_keeps_the_server_when_its_parent_goes(place: Place) -> None:
    parent = place.user()
    parent("ensure")
    before = place.server.pids()
    child = int(parent("fork"))
    try:
        parent.kill()
        with pytest.raises(AssertionError):
            place.wait_until_gone(0.5)  # several times the linger time
        assert place.server.pids() == before
    finally:
        os.kill(child, signal.SIGKILL)
    place.wait_until_gone()


@pytest.mark.parametrize("victim", ["keeper", "server", "both"])
def test_server_comes_back_with_its_data(place: Place, victim: str) -> None:
    user = place.user()
    user("safely SET name value")
    before = place.server.pids()
    killed = {"keeper": before[:1], "server": before[1:], "both": before}[victim]
    for pid in killed:
        kill(pid)
    wait_until(lambda: not set(killed) & set(place.processes()))
    assert user("recover") == "None"
    assert user("call GET name") == "value"
    keeper, server = place.server.pids()
    assert (keeper == before[0]) == (victim == "server")
    assert server != before[1]
    assert set(place.processes()) == {keeper, server}


@pytest.mark.parametrize("seed", range(3))
def test_no_data_is_lost_and_nothing_is_left_whoever_is_killed(places: Places, seed: int) -> None:
    order = random.Random(seed)
    place = places()
    users = [place.user() for _ in range(3)]
    for count in range(1, 25):
        user = order.choice(users)
        victim = order.choice(["user", "keeper", "server"])
        # Idempotent: a command whose answer was lost is sent again.
        assert user(f"safely SADD seen {count}") in (":0", ":1")
        assert user("safely SCARD seen") == f":{count}"
        if victim == "user":
            user.kill()
            users[users.index(user)] = place.user()
        else:
            # Right after the answer. It may not be back yet from the last time.
            if pid := place.server.pids()[victim == "server"]:
                kill(pid)
    for user in users:
        user.kill()
    place.wait_until_gone()


def test_terminated_keeper_stops_its_server_and_is_replaced(place: Place) -> None:
    user = place.user()
    user("safely SET name value")
    before = place.server.pids()
    kill(before[0], signal.SIGTERM)
    wait_until(lambda: before[1] not in place.processes())
    assert user("safely GET name") == "value"


def test_many_processes_at_once_start_one_server(place: Place) -> None:
    users = [place.user() for _ in range(20)]
    for user in users:
        user.send("ensure")
    assert [user.answer() for user in users] == ["None"] * 20
    keeper, server = place.server.pids()
    assert set(place.processes()) == {keeper, server}
    assert [user("call INCR count") for user in users] == [f":{i}" for i in range(1, 21)]
    assert (place.server.directory / "server.log").read_text().count("Server initialized") == 1


def test_many_threads_and_forks_at_once_start_one_server(place: Place) -> None:
    user = place.user()
    assert user("ensure_in_threads") == "20"
    assert len(place.processes()) == 2


def test_nobody_joins_a_server_that_is_being_stopped(places: Places) -> None:
    place = places(linger=0)
    users = [place.user() for _ in range(3)]
    for user in users:
        user.send("come_and_go 30")
    assert [user.answer() for user in users] == ["30"] * 3
    starts = (place.server.directory / "server.log").read_text().count("Server initialized")
    assert starts > 5, "the window was hardly hit"
    assert users[0]("safely GET visits") == "90"


def test_two_directories_have_two_servers(places: Places) -> None:
    one, two = places("one"), places("two")
    assert one.user()("safely SET name one") == "+OK"
    assert two.user()("safely SET name two") == "+OK"
    assert one.users[0]("call GET name") == "one"
    assert not set(one.server.pids()) & set(two.server.pids())


@pytest.mark.parametrize("name", ["with space", "per%20cent", "x" * 60 + "/" + "y" * 60])
def test_any_path_will_do(places: Places, name: str) -> None:
    place = places(name)
    user = place.user()
    assert user("safely SET name value") == "+OK"
    assert len(os.fsencode(place.server.socket_path)) <= 100
    assert EmbeddedServer(place.server.directory).url == place.server.url
    assert (place.server.directory / "appendonlydir").is_dir()
    with redis.Redis.from_url(place.server.url) as client:
        assert client.get("name") == b"value"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_keeper_inherits_no_lock(place: Place) -> None:
    place.user()("ensure")
    for pid, locks in zip(place.server.pids(), ({"keeper.lock"}, {"server.lock"}), strict=True):
        files = {os.path.basename(os.readlink(link)) for link in Path(f"/proc/{pid}/fd").iterdir()}
        # The keeper looks at the lock of the users from time to time.
        assert {name for name in files if name.endswith(".lock")} - {"users.lock"} == locks
