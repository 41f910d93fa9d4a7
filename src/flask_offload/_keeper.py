"""The keeper: the small program that owns the embedded server.

:mod:`flask_offload._server` runs this file by its path, in a session of its own, with an
interpreter that loads neither ``site`` nor any package, so that it starts fast and stays small.
It therefore imports the standard library only. The protocol between the keeper and the
processes that use the server is described in :mod:`flask_offload._server`.

Usage: ``python -I -S _keeper.py DIRECTORY SOCKET COMMAND...``. ``FLASK_OFFLOAD_LINGER`` in
the environment is the time in seconds for which an unused server is kept (default 10).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import sys
import time

# Files in the directory of the server.
USERS_LOCK, KEEPER_LOCK, SERVER_LOCK = "users.lock", "keeper.lock", "server.lock"
FAILURE = "failure"

# How the program that was run ends; the keeper itself is its child.
RUNNING, ANOTHER_RUNS, DIED = 0, 3, 4

# A script for a hundred jobs makes thousands of small strings, and frees them together. The
# allocator of glibc keeps seven of a size at hand, and sorts the others into its heap again and
# again, which took half of the server's time when many jobs waited. It is to keep all small ones;
# records are larger, and what they leave as they grow is of use for each other. Other allocators
# ignore this. See https://sourceware.org/glibc/manual/latest/html_node/Memory-Allocation-Tunables.html
TUNABLES = "glibc.malloc.tcache_count=60000:glibc.malloc.tcache_max=350"

LINGER = float(os.environ.get("FLASK_OFFLOAD_LINGER", "10"))
STOP_TIMEOUT = 5.0
MAX_FAILED_STARTS = 4


def holder(path: str | os.PathLike[str]) -> int | None:
    """The process that holds the record lock (:func:`fcntl.lockf`) on a file.

    The kernel answers: this is never stale as a pid file is, and asking does not take the lock
    away from somebody who tries to get it at this moment.

    :return: Its process id; 0 if it lives where we cannot see it, in another container or on
        another host; ``None`` if nobody holds the lock.
    """
    # struct flock is (type, whence, start, length, pid) on Linux, and
    # (start, length, pid, type, whence) on macOS and the BSDs.
    if sys.platform.startswith("linux"):
        layout, kind, pid, query = "hhqqi0q", 0, 4, (fcntl.F_WRLCK, 0, 0, 0, 0)
    else:
        layout, kind, pid, query = "qqihhi0q", 3, 2, (0, 0, 0, fcntl.F_WRLCK, 0, 0)
    try:
        with open(path, "rb") as file:
            answer = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(layout, *query))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    fields = struct.unpack(layout, answer)
    return None if fields[kind] == fcntl.F_UNLCK else max(fields[pid], 0)


class Keeper:
    """Starts the server, restarts it, and stops it once nobody uses it."""

    def __init__(self, directory: str, socket_path: str, command: list[str]) -> None:
        self.socket_path = socket_path
        self.command = command
        self.failure = os.path.join(directory, FAILURE)
        self.users_lock = os.path.join(directory, USERS_LOCK)
        self.server_lock = os.path.join(directory, SERVER_LOCK)
        self.aof = os.path.join(directory, "appendonlydir")
        self.synced: dict[str, int] = {}  # sizes
        self.sync_at = 0.0
        self.inode = os.stat(self.users_lock).st_ino
        self.server, self.listening = 0, False  # process id, 0 while none runs
        self.started_at = self.start_at = self.delay = 0.0
        self.failed_starts, self.patience = 0, 1.0
        self.kill_orphan_at = time.monotonic() + STOP_TIMEOUT
        self.idle_since = 0.0  # 0 while there are users
        self.end_by = signal.SIGTERM
        self.done = False
        # A signal ends the wait of select() at once, also one that comes just before it.
        self.wake, wake_end = os.pipe()
        for end in (self.wake, wake_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "done", True))

    def log(self, message: str) -> None:
        with contextlib.suppress(OSError):  # a full disk
            print(f"{os.getpid()}:K {time.strftime('%d %b %Y %H:%M:%S')} * {message}", flush=True)

    def run(self) -> None:
        """Keep the server for as long as it is of use."""
        while not self.done:
            if not self.server and time.monotonic() >= self.start_at and self.is_alone():
                self.start()
            pause = min(0.5, LINGER / 4 + 0.01) if self.listening else 0.01
            select.select([self.wake], [], [], pause)
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake, 512)
            self.reap()
            found = self.server > 0 and os.path.exists(self.socket_path)
            if self.server and not found and self.gave_up_on_socket():
                os.kill(self.server, signal.SIGTERM)
            self.listening = found
            self.sync()
            self.look_for_users()

    def gave_up_on_socket(self) -> bool:
        """Whether nobody can connect any more: the socket was deleted, perhaps before we saw it."""
        late = time.monotonic() > self.started_at + self.patience
        if late and not self.listening:
            self.patience = min(2 * self.patience, 30.0)  # this machine may just be slow
        return self.listening or late

    def sync(self) -> None:
        """Once a second, have on the disk what the server has written.

        The server must not do this itself: under ``appendfsync everysec`` it keeps back what
        comes during an fsync, confirms it, and loses it if it is killed then.
        """
        if time.monotonic() < self.sync_at:
            return
        self.sync_at = time.monotonic() + 1
        with contextlib.suppress(OSError), os.scandir(self.aof) as entries:
            sizes = {entry.path: entry.stat().st_size for entry in entries}
            for path in [path for path in sizes if sizes[path] != self.synced.get(path)]:
                with open(path, "rb") as file:
                    os.fsync(file)
            self.synced = sizes

    def look_for_users(self) -> None:
        """End the work once the users' lock has been free for the linger time."""
        try:
            fd = os.open(self.users_lock, os.O_RDWR)
        except FileNotFoundError:
            fd = -1
        if fd < 0 or os.fstat(fd).st_ino != self.inode:
            # Another server may already own the path of the socket, and a server that stops on
            # SIGTERM would unlink it.
            self.log("The directory was deleted; stopping the server.")
            self.done, self.end_by = True, signal.SIGKILL
            return
        now = time.monotonic()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.idle_since = self.idle_since or now
        except BlockingIOError:
            self.idle_since = 0.0
        if self.idle_since and now - self.idle_since >= LINGER:
            # Keep this lock rather than take it again: from here to our exit nobody can begin to
            # use the server that we stop.
            self.log("Nobody uses the server; stopping it.")
            self.done = True
        else:
            os.close(fd)

    def is_alone(self) -> bool:
        """Whether the server of a dead keeper has gone. On Linux it is ending already."""
        pid = holder(self.server_lock)
        if pid:
            late = time.monotonic() > self.kill_orphan_at
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        return pid is None

    def start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket_path)  # that of a killed server would look as if ours listened
        self.started_at = time.monotonic()
        keeper = os.getpid()
        self.server = os.fork()
        if self.server == 0:
            try:
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_DFL)
                self.become_server(keeper)
            except OSError as error:
                self.log(f"Cannot run {self.command[0]}: {error}")
            finally:
                os._exit(127)

    def become_server(self, keeper: int) -> None:
        """In the child: replace the program by the server."""
        if sys.platform == "linux":
            with contextlib.suppress(ImportError):  # some builds of Python are without
                import ctypes  # here only, so that the keeper stays small

                # SIGTERM, not SIGKILL, so that it syncs its append-only file.
                ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
            if os.getppid() != keeper:  # it died before prctl(), so no signal will come
                os._exit(DIED)
        # A record lock outlives exec and does not pass to children: it is held exactly as long
        # as this server runs, and no two servers ever write the same append-only file.
        lock = os.open(self.server_lock, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(lock, True)
        # The server refuses to start under a locale that is not installed.
        environment = {"GLIBC_TUNABLES": TUNABLES, **os.environ, "LC_ALL": "C"}
        os.execve(self.command[0], self.command, environment)  # noqa: S606

    def reap(self) -> None:
        """Notice the death of the server, and decide when the next one starts."""
        pid, status = os.waitpid(self.server, os.WNOHANG) if self.server else (0, 0)
        if not pid:
            return
        self.server, self.listening = 0, False
        code, now = os.waitstatus_to_exitcode(status), time.monotonic()
        self.log(f"The server ended with status {code}.")
        self.delay = min(2 * self.delay + 0.05, 2.0) if now - self.started_at < 5 else 0.0
        self.start_at = now + self.delay
        # A server that was killed is worth another start, one that gave up by itself may not be.
        self.failed_starts = self.failed_starts + 1 if code > 0 else 0
        if self.failed_starts >= MAX_FAILED_STARTS:
            with contextlib.suppress(OSError), open(self.failure, "w") as file:
                file.write(f"It ended {self.failed_starts} times with status {code}.")
            self.done = True

    def stop(self) -> None:
        """Stop the server, which writes and syncs its append-only file first."""
        deadline = time.monotonic() + STOP_TIMEOUT
        while self.server and not os.waitpid(self.server, os.WNOHANG)[0]:
            # Again and again: one that comes before the child is the server goes to our handler.
            os.kill(self.server, self.end_by if time.monotonic() < deadline else signal.SIGKILL)
            select.select([self.wake], [], [], 0.1)
        self.server = 0


def main(directory: str, socket_path: str, *command: str) -> int:
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the process that ran us may block some
    verdict, verdict_end = os.pipe()
    if os.fork():
        # The keeper is our child, so that it is no zombie of a web process when it ends.
        os.close(verdict_end)
        return (os.read(verdict, 1) or bytes([DIED]))[0]
    # Held for life. A record lock, because nobody can pass it on by a fork.
    lock = os.open(os.path.join(directory, KEEPER_LOCK), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.write(verdict_end, bytes([ANOTHER_RUNS]))
        return 0
    keeper = Keeper(directory, socket_path, list(command))
    os.write(verdict_end, bytes([RUNNING]))
    try:
        keeper.run()
    finally:
        keeper.stop()
    # First this lock; the users' lock goes when we exit. Who gets that one must find no keeper,
    # or would wait for a server that does not come.
    os.close(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
