"""The beginning of a process that its parent looks after."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress

from .process import READY, Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import typing as t

__all__ = ["Child", "fork"]


class Child:
    """This process, in the child.

    :param pipe: Where it tells its parent something.
    """

    def __init__(self, parent: int, pipe: int, signals: t.Collection[int]) -> None:
        self._parent, self._pipe, self._signals = parent, pipe, signals

    def begin(self, pipes: t.Iterable[int]) -> None:
        """Leave behind what is the parent's.

        :param pipes: File descriptors of the parent.
        """
        signal.set_wakeup_fd(-1)
        for number in self._signals:
            signal.signal(number, signal.SIG_DFL)
        for pipe in pipes:
            os.close(pipe)
        # Ctrl-C reaches it through the parent, once.
        if os.getpgrp() != os.getpid():
            os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
        _end_with(self._parent)

    def tell(self, word: bytes) -> None:
        if word == READY:
            _end_with(self._parent)  # --uid has taken it away
        # The program that listened may have been replaced.
        with suppress(OSError):
            os.write(self._pipe, word)


def fork(signals: t.Collection[int]) -> Process | Child:
    """Fork; what is returned tells where one is.

    :param signals: Blocked in the child until :meth:`Child.begin`: until it has handlers of its
        own, one that comes would run those of the parent.
    """
    reader, writer = os.pipe()
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        return Child(parent, writer, signals)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    os.close(writer)
    os.set_blocking(reader, False)
    return Process(pid, reader)


def _end_with(parent: int) -> None:
    """Have this process get SIGTERM when its parent ends, however that ends.

    A change of user takes that away on Linux: call it again after one.
    """
    if sys.platform == "linux":
        with suppress(ImportError, AttributeError):  # some builds of Python are without
            prctl: t.Any = _libc().prctl
            if prctl(1, signal.SIGTERM) == 0:  # PR_SET_PDEATHSIG
                if os.getppid() != parent:  # it died before that, so no signal will come
                    os.kill(os.getpid(), signal.SIGTERM)
                return
    if not _watching.is_set():
        _watching.set()
        threading.Thread(target=_watch, args=(parent,), name="offload-parent", daemon=True).start()


_watching = threading.Event()


def _libc() -> t.Any:
    import ctypes  # not where it is missing

    return ctypes.CDLL(None)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
