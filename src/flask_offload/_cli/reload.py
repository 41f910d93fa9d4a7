"""New code for a supervisor: its program replaces itself, and keeps its children.

An ``exec`` changes neither the process nor whose children the workers are. What does not load
must not take the place of what runs, so it is tried in a process of its own first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import typing as t
from contextlib import contextmanager

__all__ = ["Trial", "hand_down", "handed_down", "is_trial"]

#: In the environment: the processes of the program before the ``exec``; and that this program is
#: to load what it needs, and do nothing.
WORKERS, TRIAL = "FLASK_OFFLOAD_WORKERS", "FLASK_OFFLOAD_TRIAL"


def is_trial() -> bool:
    """Whether this program was started only to see if it can be."""
    return TRIAL in os.environ


class Trial:
    """This command line in a process of its own, up to where its work would begin."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        with _told():
            env = {**os.environ, TRIAL: "1"}
            self._process = subprocess.Popen(_command(), env=env, start_new_session=True)

    def passed(self) -> bool | None:
        """Whether it has loaded; ``None`` while it has not ended."""
        if self._process is None:
            return False
        code = self._process.poll()
        return None if code is None else code == 0

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def hand_down(processes: t.Iterable[tuple[int, int]]) -> None:
    """Become the new program; returns only if there is none.

    Signals that are blocked stay so, and none of them is lost.

    :param processes: Numbers of places, 0 for none, and process ids.
    """
    os.environ[WORKERS] = " ".join(f"{number}:{pid}" for number, pid in processes)
    sys.stdout.flush()
    sys.stderr.flush()
    with _told():
        os.execv(sys.executable, _command())  # noqa: S606
    del os.environ[WORKERS]


def handed_down() -> list[tuple[int, int]]:
    """What the program before has handed down, once."""
    items = (item.split(":") for item in os.environ.pop(WORKERS, "").split())
    return [(int(number), int(pid)) for number, pid in items]


@contextmanager
def _told() -> t.Iterator[None]:
    """Print that the interpreter is not there, as after a deployment that took it away."""
    try:
        yield
    except OSError as error:
        print(f"Cannot run {sys.executable}: {error}", file=sys.stderr, flush=True)


def _command() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]
