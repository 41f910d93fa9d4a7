"""Stops a job that runs in a thread, by an exception at a line of its own code.

CPython can raise an exception in another thread, wherever that thread is. In the middle of a
library this would leave locks locked and connections with half of an answer. So a thread watches
the job, and raises the exception only while the innermost frame is of the task's own code: to
everything else this looks like a task that raises.

* It waits while the job is in a library, and in native code and blocking calls, which return first.
* It hits between any two lines of the task's own code: also between ``lock.acquire()`` and the
  ``try`` after it (``with lock:`` is safe), and in a ``finally``. A task for which that will not do
  says ``interrupt=False``, and is stopped at its calls on ``current_job``.
* It comes once. A task that swallows it (a bare ``except:``) goes on to its next such call.
* Celery's code and ours around the task's body are never hit.
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
import threading
import time
import typing as t
from types import FrameType

from ..exceptions import JobCancelled

__all__ = ["LeaseLost", "run", "stop"]

T = t.TypeVar("T")
#: A job and the fence of its delivery.
Key = tuple[str, int]

#: Seconds between two looks at where a job is.
PAUSE = 0.01
#: Seconds for which a job is waited for that is about to start.
PATIENCE = 5.0
#: The interpreter lets a thread run for 5 ms before another one may. What is seen in the first of
#: them is still true when the exception is set.
SLICE = 0.001
#: What must not be left in the middle, or where exceptions are swallowed.
SPARED = frozenset("__enter__ __exit__ __aenter__ __aexit__ __del__".split())
PACKAGE = __name__.partition(".")[0]
STDLIB = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")})


class LeaseLost(JobCancelled):
    """The job is another worker's by now: what it still does here is in vain."""


class _Body:
    """The body of a task, while a thread is in it.

    :param home: The package of the task, whose code is its own wherever it is installed.
    """

    def __init__(self, home: str) -> None:
        self.home = home
        self.thread = threading.get_ident()
        # Who leaves may be hit while it takes the lock, and takes it again.
        self.lock = threading.RLock()
        self.over = False
        self.sent = False

    def leave(self) -> None:
        """From here on nothing is raised in this thread, and nothing is on its way."""
        with self.lock:
            self.over = True
            if self.sent:
                _raise_in(self.thread, None)

    def hit(self, error: type[BaseException], seen: float) -> bool:
        """Raise ``error`` in the thread, unless that is too late or would do harm there.

        :param seen: When this thread began to run.
        :return: Whether there is nothing left to do.
        """
        # Never wait: whoever has the lock is leaving, or was hit while it did.
        if not self.lock.acquire(blocking=False):
            return self.sent
        try:
            if self.over or self.sent:
                return True
            frame = sys._current_frames().get(self.thread)
            if frame is None or not self._is_own(frame) or time.monotonic() - seen > SLICE:
                return False
            self.sent = True
            _raise_in(self.thread, error)
            return True
        finally:
            self.lock.release()

    def _is_own(self, frame: FrameType) -> bool:
        code = frame.f_code
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package == PACKAGE or code.co_name in SPARED:
            return False
        if package == self.home:
            return True
        path = code.co_filename
        library = "site-packages" in path or "dist-packages" in path or path.startswith(STDLIB)
        return not library and not path.startswith("<")


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )


_bodies: dict[Key, _Body] = {}


def run(key: Key, home: str, body: t.Callable[..., T], args: t.Any, kwargs: t.Any) -> T:
    """Call the body of a task, which :func:`stop` may end until it returns."""
    entry = _Body(home.partition(".")[0])
    try:
        try:
            _bodies[key] = entry
            return body(*args, **kwargs)
        finally:
            entry.leave()
    except BaseException:
        # The exception comes once. If it hit while the body was being left, nothing can hit now.
        entry.leave()
        raise
    finally:
        if _bodies.get(key) is entry:
            del _bodies[key]


class _Watch:
    """The thread that looks where jobs are which are to stop, while there are any."""

    def __init__(self) -> None:
        self._reset()
        # The thread does not survive a fork, and its lock may have been held by it.
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._wanted: dict[Key, tuple[type[JobCancelled], float]] = {}
        self._running = False

    def add(self, key: Key, error: type[JobCancelled]) -> None:
        with self._lock:
            self._wanted.setdefault(key, (error, time.monotonic() + PATIENCE))
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="offload-interrupt", daemon=True).start()

    def _run(self) -> None:
        while True:
            # Also what makes the interpreter give this thread a slice of its own.
            time.sleep(PAUSE)
            seen = time.monotonic()
            for key, (error, limit) in list(self._wanted.items()):
                entry = _bodies.get(key)
                # One that is not there yet may be about to start, or be over.
                done = seen > limit if entry is None else entry.hit(error, seen)
                if done:
                    with self._lock:
                        self._wanted.pop(key, None)
            with self._lock:
                if not self._wanted:
                    self._running = False
                    return


_watch = _Watch()


def stop(job_id: str, fence: int, error: type[JobCancelled] = JobCancelled) -> None:
    """Stop a job of this process at the next line of its own code, if it runs in a thread here."""
    if sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)():
        _watch.add((job_id, fence), error)
