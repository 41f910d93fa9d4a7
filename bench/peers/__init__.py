"""The same two tasks for each library: ``nothing``, and ``stamp``, which tells when it started.

Each module runs in a virtual environment of its own, and offers to ``bench.client``:

``delay(name, *args)``
    Enqueue one job, as an application would.
``later(seconds, name, *args)``
    Enqueue one that is due later, where the library can.
``many(name, calls)``
    Enqueue one for each sequence of arguments in few round trips, where the library can.
``time_delays(jobs)``
    The seconds that each ``delay`` took, where a plain loop around it would time something else.
"""

from __future__ import annotations

import os
import time

__all__ = ["URL", "nothing", "stamp"]

URL = os.environ.get("BENCH_URL", "")


def nothing() -> None:
    pass


def stamp(kind: str, due: float, seconds: float) -> None:
    """Note when this started and when it should have, then take ``seconds``."""
    line = f"{kind} {due!r} {time.time()!r}\n"
    # One write to a file opened for appending: no two lines mix, and no server is disturbed.
    file = os.open(os.environ["BENCH_STAMPS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, line.encode())
    os.close(file)
    if seconds:
        time.sleep(seconds)
