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
first and for the answer of the server second, as a new keeper takes away the socket of the old
server before anybody learns of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from . import _keeper
from .exceptions import ServerError

START_TIMEOUT = 15.0
LOADING_TIMEOUT = 120.0
MAX_SOCKET_PATH = 100
MAX_LOG = 1_000_000
OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    "logfile": "",  # standard output, which is the log that the keeper writes, too
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "hash-max-listpack-value": "2048",
}
USE_URL = "Set OFFLOAD_URL to a Valkey or Redis server"


class EmbeddedServer:
    """The private server of one app.

    The constructor starts nothing and touches no file.

    :param directory: Where data, locks and log are kept, usually ``<instance>/offload``.
    :param warn: Called by others with a sentence for the operator.
    """

    def __init__(self, directory: Path, *, warn: Callable[[str], None] | None = None) -> None:
        self.directory = Path(os.path.abspath(directory))
        self.warn = warn
        self._socket_path = _socket_path(self.directory)
        self._lock = threading.RLock()
        self._ready = False
        self._share: int | None = None
        self._close_share: Callable[[], object] = lambda: None
        _instances.add(self)

    @property
    def socket_path(self) -> Path:
        """The unix socket, in the directory unless its path would be too long."""
        return self._socket_path

    @property
    def url(self) -> str:
        """The address, the same in all processes of the app and known before any start."""
        return f"unix://{self._socket_path}"

    def ensure(self) -> None:
        """Have the server run, and keep it alive for as long as this process lives.

        The first call starts the server or joins the one that runs, and waits until its data is
        loaded. Further calls cost nothing: they do not ask the server.

        :raises ServerError: The server cannot be started, or does not answer within 15 s.
        """
        if not self._ready:
            self._bring_up(START_TIMEOUT)

    def recover(self, timeout: float = 5.0) -> None:
        """Bring the server back after a connection error.

        :param timeout: Seconds to wait until it answers.
        :raises ServerError: It does not.
        """
        self._ready = False
        self._bring_up(timeout)

    def release(self) -> None:
        """Give up the share of this process. The server stops when the last one is given up,
        after the linger time."""
        with self._lock:
            self._ready = False
            self._close_share()
            self._share = None

    def pids(self) -> tuple[int | None, int | None]:
        """The process ids of keeper and server, ``None`` for one that does not run."""
        keeper = _keeper.holder(os.path.join(self.directory, _keeper.KEEPER_LOCK))
        server = _keeper.holder(os.path.join(self.directory, _keeper.SERVER_LOCK))
        return keeper or None, server or None
