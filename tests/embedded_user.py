"""A process that uses an embedded server, led by lines on its standard input.

Usage: ``python server_user.py SOURCE DIRECTORY``. Each line is a command with arguments, and
gets one line back: its value, or the name of the error and its message. It imports neither
Flask nor Celery, since the tests start many of it.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path

package = types.ModuleType("flask_offload")
package.__path__ = [sys.argv[1]]
sys.modules["flask_offload"] = package

from flask_offload._server import EmbeddedServer  # noqa: E402

server = EmbeddedServer(Path(sys.argv[2]))


def call(*arguments: str) -> str:
    """Send one command to the server."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(server.socket_path))
        parts = [f"${len(argument)}\r\n{argument}\r\n" for argument in arguments]
        connection.sendall(f"*{len(parts)}\r\n{''.join(parts)}".encode())
        lines = connection.makefile("rb")
        answer = lines.readline().decode().strip()
        if not answer:
            raise ConnectionError("no answer")
        if answer[0] != "$" or answer == "$-1":
            return answer
        return lines.read(int(answer[1:])).decode()


def safely(*arguments: str) -> str:
    """As the extension does it: after a connection error, recover and try again."""
    server.ensure()
    while True:
        try:
            return call(*arguments)
        except OSError:
            server.recover()


def fork() -> int:
    """Fork a child that lives until it is killed."""
    child = os.fork()
    if child == 0:
        os.close(0)
        os.close(1)
        signal.pause()
    return child


def come_and_go(times: str) -> int:
    """Join and leave again and again. A server that was joined must answer at once."""
    for _ in range(int(times)):
        server.ensure()
        call("INCR", "visits")
        server.release()
        time.sleep(random.uniform(0, 0.03))
    return int(times)


def ensure_in_threads() -> int:
    """Twenty threads begin at the same time; forks in between must not inherit a held lock."""
    barrier, done = threading.Barrier(20), []

    def work() -> None:
        barrier.wait()
        server.ensure()
        done.append(call("PING"))

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    children: list[int] = []
    while any(thread.is_alive() for thread in threads) and len(children) < 5:
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            server.ensure()
            os._exit(call("PING") != "+PONG")
        children.append(child)
    for thread in threads:
        thread.join()
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    return len(done) - 100 * len(failed)


COMMANDS: dict[str, Callable[..., object]] = {
    "ensure": server.ensure,
    "recover": lambda timeout="5": server.recover(float(timeout)),
    "release": server.release,
    "call": call,
    "safely": safely,
    "setuid": lambda uid: os.setuid(int(uid)),
    "fork": fork,
    "come_and_go": come_and_go,
    "ensure_in_threads": ensure_in_threads,
}

for line in sys.stdin:
    name, *words = line.split()
    try:
        reply = str(COMMANDS[name](*words))
    except Exception as error:
        reply = f"{type(error).__name__}: {error}"
    print(reply.replace("\n", " | "), flush=True)
