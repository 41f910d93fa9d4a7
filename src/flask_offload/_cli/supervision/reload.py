"""A supervisor's program replaces itself, and keeps its children.

An ``exec`` changes neither the process nor whose children the workers are. What does not load
must not take the place of what runs, so it is tried in a process of its own first.
"""

from __future__ import annotations

import os
import sys

from .bare import signal
from .process import Process

__all__ = [
    "Trial", "exec_asleep", "exec_awake", "given_place", "handed_down", "is_trial", "own_command",
    "spawn",
]  # fmt: skip

#: In the environment: the processes of the program before the ``exec``; that this program is to
#: load what it needs, and do nothing; and that it is to be one of the processes.
WORKERS, TRIAL = "FLASK_OFFLOAD_WORKERS", "FLASK_OFFLOAD_TRIAL"
PLACE = "FLASK_OFFLOAD_PLACE"
ASLEEP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "asleep.py")


def own_command() -> list[str]:
    """The command line of this program."""
    return [sys.executable, *sys.orig_argv[1:]]


def is_trial() -> bool:
    """Whether this program was started only to see if it can be."""
    return TRIAL in os.environ


class Trial:
    """A command line in a process of its own, up to where its work would begin."""

    def __init__(self, command: list[str]) -> None:
        pid = _spawn(command, {TRIAL: "1"})
        self._process = None if pid is None else Process(pid)
        self._code = 1 if pid is None else None

    def passed(self) -> bool | None:
        """Whether it has loaded; ``None`` while it has not ended."""
        if self._process is not None and self._code is None:
            self._code = self._process.reap()
        return None if self._code is None else self._code == 0

    def end(self) -> None:
        if self._process is not None and self._code is None:
            self._process.send(signal.SIGKILL)
            os.waitpid(self._process.pid, 0)


Places = list[tuple[int, int]]


def spawn(command: list[str], number: int) -> Process | None:
    """Start a command line that is to be the process of a place; ``None`` if there is none."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    pid = _spawn(command, {PLACE: f"{number}:{writer}:{os.getpid()}"})
    os.close(writer)
    if pid is None:
        os.close(reader)
        return None
    os.set_blocking(reader, False)
    return Process(pid, reader)


def given_place() -> tuple[int, int, int] | None:
    """What :func:`spawn` told this program, once: its number, its pipe, and its parent."""
    if not (words := os.environ.pop(PLACE, "")):
        return None
    number, pipe, parent = map(int, words.split(":"))
    os.set_inheritable(pipe, False)
    return number, pipe, parent


def exec_awake(command: list[str], places: Places) -> None:
    """Become the program that loads the app; returns only if there is none.

    Signals that are blocked stay so, and none of them is lost.

    :param places: Numbers of places, 0 for none, and ids of processes, which it replaces.
    """
    _exec(command, {WORKERS: _written(places)})


def exec_asleep(command: list[str], places: Places, grace: float) -> None:
    """Become the small program of :mod:`~.asleep`; returns only if that cannot be.

    :param command: What it becomes when it needs the app.
    """
    if os.path.isfile(ASLEEP) and not getattr(sys, "frozen", False):
        # Isolated, and without the packages of the site: they would take room.
        program = [command[0], "-I", "-S", ASLEEP, str(len(places)), str(grace), *command]
        _exec(program, {WORKERS: _written(places)})


def handed_down() -> Places:
    """What the program before has handed down, once."""
    items = (item.split(":") for item in os.environ.pop(WORKERS, "").split())
    return [(int(number), int(pid)) for number, pid in items]


def _written(places: Places) -> str:
    return " ".join(f"{number}:{pid}" for number, pid in places)


def _spawn(command: list[str], told: dict[str, str]) -> int | None:
    try:
        # In a group of its own: Ctrl-C is for the supervisor.
        return os.posix_spawn(command[0], command, {**os.environ, **told}, setpgroup=0)
    except OSError as error:
        _tell(command, error)
        return None


def _exec(command: list[str], told: dict[str, str]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(command[0], command, {**os.environ, **told})  # noqa: S606
    except OSError as error:
        _tell(command, error)


def _tell(command: list[str], error: OSError) -> None:
    """As after a deployment that took the interpreter away."""
    print(f"Cannot run {command[0]}: {error}", file=sys.stderr, flush=True)
