"""What ``make demo`` runs: the mail server and the API of ``services.py`` in this process, then
``flask --app app offload dev``, which starts the web server and one Celery worker."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import services

HERE = Path(__file__).resolve().parent
INSTANCE = HERE / "instance"


def main() -> int:
    port = port_from(os.environ.get("PORT", "5000"))
    address = f"http://{services.LOOPBACK}:{port}/tasks"
    outbox = INSTANCE / "outbox"
    with only_one(address):
        check_free(port)
        with services.smtp_sink(outbox) as smtp_port, services.flaky_api() as quote_url:
            # Set even if the shell has them: a demo must not send mail to the world.
            os.environ.update(
                MAIL_SERVER=services.LOOPBACK,
                MAIL_PORT=str(smtp_port),
                MAIL_USE_TLS="0",
                QUOTE_API_URL=quote_url,
                OUTBOX_DIR=str(outbox),
            )
            for name in ("MAIL_USERNAME", "MAIL_PASSWORD", "QUOTE_ORIGINS"):
                os.environ.pop(name, None)
            print(f"The demo will be at {address}; Ctrl-C stops it.", flush=True)
            return run("offload", "dev", "--port", str(port))


def port_from(text: str) -> int:
    port = int(text) if text.isdecimal() else 0
    if not 0 < port < 65536:
        raise SystemExit(f"PORT={text} is not a port. Choose one like this: PORT=5051 make demo")
    return port


@contextlib.contextmanager
def only_one(address: str) -> Iterator[None]:
    """Hold the lock of the demo, which also says where it runs."""
    INSTANCE.mkdir(exist_ok=True)
    with (INSTANCE / "demo.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            running = lock.read().strip() or "another port"
            raise SystemExit(
                f"The demo is already running at {running}. Stop it there with Ctrl-C."
            ) from None
        lock.truncate(0)
        lock.write(address)
        lock.flush()
        yield


def check_free(port: int) -> None:
    try:
        # As the web server will do it, which may take a port that was just given up.
        socket.create_server((services.LOOPBACK, port)).close()
    except OSError as error:
        other = port + 1 if port < 65535 else 5051
        raise SystemExit(
            f"Port {port} cannot be used ({error.strerror}). "
            f"Choose another one: PORT={other} make demo"
        ) from None


def run(*command: str) -> int:
    """Run a command of the app, pass on what would stop this process, and wait for its end."""
    child: subprocess.Popen[bytes] | None = None
    wanted: list[signal.Signals] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        # A worker takes SIGHUP for "restart".
        wanted.append(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
        if child is not None:
            child.send_signal(wanted[-1])

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    # In a group of its own, so that Ctrl-C reaches it once, by us, and not a second time by the
    # terminal: twice means "at once" to a worker.
    child = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "app", *command], cwd=HERE, process_group=0
    )
    if wanted:
        child.send_signal(wanted[-1])
    code = child.wait()
    with contextlib.suppress(ProcessLookupError):  # as it should be: nothing is left of the group
        os.killpg(child.pid, signal.SIGTERM)
    return 0 if wanted else code


if __name__ == "__main__":
    sys.exit(main())
