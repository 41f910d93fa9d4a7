"""The half of redis-py that waits for its first use."""

from __future__ import annotations

import subprocess
import sys

import pytest

PARTS = "redis.asyncio.client", "redis.asyncio.cluster"


def run(code: str) -> str:
    """What a new interpreter prints."""
    command = [sys.executable, "-c", f"import sys\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_nothing_of_ours_uses_it() -> None:
    assert run(f"import flask_offload\nprint([n for n in {PARTS} if n in sys.modules])") == "[]"


@pytest.mark.parametrize(
    "use",
    [
        "import redis; Redis = redis.asyncio.Redis",
        "import redis.asyncio as r; Redis = r.Redis",
        "from redis.asyncio import Redis",
        "from redis.asyncio import *",
        "from redis.asyncio.client import Redis",
        "import redis.asyncio.client; Redis = redis.asyncio.Redis",
        "import inspect; inspect.getmodule(len); from redis.asyncio import Redis",
    ],
)
def test_an_app_that_uses_it_has_all_of_it(use: str) -> None:
    check = "import redis, redis.asyncio as a; print(a.Redis is Redis is redis.asyncio.Redis)"
    names = "print(set(a.__all__) <= set(dir(a)), hasattr(a, 'nothing'))"
    assert run(f"import flask_offload\n{use}\n{check}\n{names}") == "True\nTrue False"


#: Which parts load, each as the first, in a fork of its own.
EACH = """
import importlib, os, pkgutil
path = importlib.util.find_spec("redis").submodule_search_locations[0] + "/asyncio"
for found in pkgutil.walk_packages([path], "redis.asyncio."):
    if not os.fork():
        try:
            importlib.import_module(found.name)
            from redis.asyncio import Redis
        except ImportError as error:
            os._exit(0 if error.name == "pybreaker" else 1)
        os.write(1, f"{found.name}\\n".encode())
        os._exit(0)
    os.wait()
"""


def test_each_part_of_it_can_come_first() -> None:
    usual = run(EACH).split()
    assert len(usual) > 10
    assert run(f"import flask_offload\n{EACH}").split() == usual


def test_threads_that_come_at_once_all_find_it() -> None:
    code = """
import flask_offload, redis, threading
found, barrier = [], threading.Barrier(8)
def use():
    barrier.wait()
    found.append((redis.asyncio.Redis, redis.asyncio.RedisCluster))
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(found), len(set(found)))
"""
    assert run(code) == "8 1"


def test_what_is_loaded_already_stays() -> None:
    code = "import redis.asyncio as before, flask_offload, redis; print(before is redis.asyncio)"
    assert run(code) == "True"
