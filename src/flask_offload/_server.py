"""The embedded server: a private Valkey for an app that sets no ``OFFLOAD_URL``.

Three kinds of processes take part. The *users* are the web and worker processes of the app. The
*server* is Valkey. Between them stands the *keeper*, a small program that starts the server,
restarts it, and stops it once the last user has gone. Any of them may be killed at any time.

What they agree on, by locks in the directory of the server that the kernel frees on any death:

``users.lock``
    Each user holds it shared. The keeper tries to get it exclusively: as long as that fails, the
    server is in use. Once the lock was free for the linger time, the keeper keeps it and stops
    the server; it lets go only by its exit. So a new user waits here while a server is being
    stopped, finds no keeper after that, and starts a new one: nobody joins a server that is
    about to go. This is a :func:`fcntl.flock`, which the children of a fork share. It is closed
    and never unlocked, since one ``LOCK_UN`` would free it for all of them.
``start.lock``
    Held by the user that starts a keeper, so that twenty processes do not start twenty.
``keeper.lock``
    Held by the keeper for life, and freed before ``users.lock``. A second keeper exits at once.
``server.lock``
    Held by the server for life. A new keeper waits until the server of a dead one has gone, for
    two servers must not write one append-only file.

The last three are record locks (:func:`fcntl.lockf`): no fork passes them on by accident, and
the kernel tells who holds one, so there is no pid file to be stale. Users look for the keeper
first and for the answer of the server second: the socket of the server of a dead keeper, which
may still answer while it ends, is taken away before there is a new keeper.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from . import _keeper, _server_setup
from .exceptions import ServerError

USE_URL = "set OFFLOAD_URL to a Valkey or Redis server"


class EmbeddedServer:
    """The private server of one app. The constructor starts nothing and touches no file.

    :param directory: Where data, locks and log are kept, usually ``<instance>/offload``.
    :param warn: Called by others with a sentence for the operator.
    """

    def __init__(self, directory: Path, *, warn: Callable[[str], None] | None = None) -> None:
        self.directory = Path(os.path.realpath(directory))
        self.warn = warn
        self._socket_path = _server_setup.find_socket_path(self.directory)
        self._users_lock = self.directory / _keeper.USERS_LOCK
        self._keeper_lock = self.directory / _keeper.KEEPER_LOCK
        self._failure = self.directory / _keeper.FAILURE
        self._log = self.directory / "server.log"
        self._lock = threading.RLock()
        self._ready = False
        self._share: int | None = None  # the file descriptor of our share of users.lock
        self._close_share: Callable[[], object] = lambda: None
        _instances.add(self)

    @property
    def socket_path(self) -> Path:
        """The unix socket: in the directory, unless its path would be too long there."""
        return self._socket_path

    @property
    def url(self) -> str:
        """The address, the same in all processes of the app and known before any start."""
        return f"unix://{quote(str(self._socket_path))}"

    def ensure(self, timeout: float = 15.0) -> None:
        """Have the server run for as long as this process lives.

        The first call starts the server or joins the one that runs, and waits until its data is
        loaded. Further calls do not ask the server and cost nothing.

        :param timeout: Seconds to wait until the server answers.
        :raises ServerError: It cannot be started, or does not answer in time.
        """
        if not self._ready:
            self._bring_up(timeout)

    def recover(self, timeout: float = 5.0) -> None:
        """Bring the server back after a connection error.

        :param timeout: Seconds to wait until the server answers.
        :raises ServerError: It cannot be started, or does not answer in time.
        """
        self._ready = False
        self._bring_up(timeout)

    def release(self) -> None:
        """Give up the share of this process. The server stops some seconds after the last one
        is given up, by this method or by the end of its process."""
        with self._lock:
            self._ready = False
            self._share = None
            self._close_share()

    def pids(self) -> tuple[int | None, int | None]:
        """The process ids of keeper and server, ``None`` for one that does not run."""
        server_lock = self.directory / _keeper.SERVER_LOCK
        return _keeper.holder(self._keeper_lock) or None, _keeper.holder(server_lock) or None

    def _bring_up(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        if not self._lock.acquire(timeout=timeout):
            raise self._error("does not answer")
        try:
            _server_setup.make_directories(self.directory, self._socket_path)
            self._take_share(deadline)
            self._join(deadline)
            self._ready = True
        except OSError as error:
            reason = f"{error.strerror or error}: {error.filename or self.directory}"
            raise ServerError(
                f"The embedded server cannot use {self.directory}.\n{reason}.\n"
                f"Give the app a writable instance_path of its own, or {USE_URL}."
            ) from error
        finally:
            self._lock.release()

    def _take_share(self, deadline: float) -> None:
        """Wait while a keeper stops the server, then hold ``users.lock`` shared."""
        if self._share is not None and _is_file_at(self._share, self._users_lock):
            return
        while (share := self._try_share()) is None:
            if time.monotonic() > deadline:
                raise self._error("is still being stopped")
            time.sleep(0.005)
        self._replace_share(share)

    def _replace_share(self, share: int) -> None:
        self._close_share()
        self._share = share
        # Also when this object is just dropped, as by a test that makes many apps.
        self._close_share = closing = weakref.finalize(self, _close, share, os.fstat(share))
        closing.atexit = False

    def _try_share(self) -> int | None:
        share = os.open(self._users_lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(share, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            # A lock on a file that was deleted meanwhile keeps nothing alive.
            if _is_file_at(share, self._users_lock):
                return share
        os.close(share)
        return None

    def _join(self, deadline: float) -> None:
        """Wait for the answer of the server, and start a keeper whenever there is none."""
        seen = False
        while True:
            answer = b""
            # The keeper first: the server of a dead keeper may still answer, but is ending.
            if (keeper := _keeper.holder(self._keeper_lock)) is not None:
                seen = True
                answer = _server_setup.ping(self._socket_path)
                if answer and not answer.startswith(b"-LOADING"):
                    return
            elif seen and (reason := _read(self._failure)):
                raise self._error("does not start", reason)
            else:
                seen = self._start_keeper(deadline) or seen
            if time.monotonic() > deadline:
                what = "is still loading its data" if answer else "does not answer"
                far = "Its keeper runs on another host or in another container."
                raise self._error(what, far if keeper == 0 else "")
            time.sleep(0.005)

    def _start_keeper(self, deadline: float) -> bool:
        """Start a keeper, unless somebody else just does. Tell whether one was started."""
        with open(self.directory / "start.lock", "wb") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                return False
            if _keeper.holder(self._keeper_lock) is not None:
                return False
            # Nobody must take for ours what an earlier keeper left, least of all the socket of its
            # server, which may answer while it ends. So this comes before ours can be seen.
            self._socket_path.unlink(missing_ok=True)
            self._failure.unlink(missing_ok=True)
            command = _server_setup.keeper_command(self.directory, self._socket_path)
            code = _server_setup.run_keeper(command, self._log, deadline - time.monotonic())
        if code > 0 and code not in (_keeper.ANOTHER_RUNS, _keeper.DIED):
            raise self._error("does not start", f"Its keeper ended with status {code}.")
        return code == _keeper.RUNNING

    def _error(self, what: str, reason: str = "") -> ServerError:
        lines = [reason, *_read(self._log)[-2000:].splitlines()[-5:]]
        why = "\n".join(filter(None, lines)) or "Its log is empty."
        return ServerError(
            f"The embedded server in {self.directory} {what}.\n{why}\n"
            f"Mend what {self._log} tells and try again, or {USE_URL}."
        )

    def _after_fork(self) -> None:
        """In the child: have a share that does not depend on what others do with theirs."""
        self._lock = threading.RLock()  # a thread that does not exist here may hold it
        if self._share is not None:
            # Before the inherited share is closed, so that the keeper never finds the lock free.
            # Without a new one, the inherited one serves as well.
            with contextlib.suppress(OSError):
                if (share := self._try_share()) is not None:
                    self._replace_share(share)


_instances: weakref.WeakSet[EmbeddedServer] = weakref.WeakSet()


def _after_fork() -> None:
    for server in list(_instances):
        server._after_fork()


os.register_at_fork(after_in_child=_after_fork)


def _is_file_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def _close(fd: int, opened: os.stat_result) -> None:
    # A program that becomes a daemon closes all it finds, and the number may be another's now.
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(fd), opened):
            os.close(fd)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
