"""``flask offload dev``: web server and worker in one terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import typing as t
from contextlib import suppress

import click
from flask.cli import ScriptInfo, pass_script_info, with_appcontext

from .worker import state

__all__ = ["dev"]

#: More than this machine may have cores: the first thing that people try are tasks that wait.
PROCESSES = "4"
#: A worker that lived shorter than this has a fault that a restart does not mend.
QUICK = 5.0


@click.command("dev")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5000, show_default=True, help="Port to listen on.")
@click.option("--debug/--no-debug", default=True, show_default=True, help="Reload and debugger.")
@pass_script_info
@with_appcontext
def dev(info: ScriptInfo, host: str, port: int, debug: bool) -> None:
    """Run the app and one worker; Ctrl-C stops both."""
    state()
    flask = [sys.executable, "-m", "flask"]
    if info.app_import_path:
        flask += ["--app", info.app_import_path]
    debugging = ["--debug"] if debug else []
    web = [*flask, *debugging, "run", "--host", host, "--port", str(port)]
    with Family() as family:
        family.start(
            "worker", [*flask, "offload", "worker", "--concurrency", PROCESSES], restart=True
        )
        family.start("web", web, restart=False)
        click.echo(
            f" * Open http://{host}:{port}/  (Ctrl-C stops the app and its worker)", err=True
        )
        raise SystemExit(family.wait())


class Member(t.NamedTuple):
    name: str
    command: list[str]
    restart: bool
    started: float
    process: subprocess.Popen[bytes]


class Family:
    """Processes that live and end together."""

    def __init__(self) -> None:
        self._members: list[Member] = []
        self._stop: int | None = None

    def __enter__(self) -> Family:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, frame: object) -> None:
        self._stop = number

    def start(self, name: str, command: list[str], *, restart: bool) -> None:
        # A session of its own: Ctrl-C reaches them through us, once, in the right order.
        process = subprocess.Popen(command, start_new_session=True)
        self._members.append(Member(name, command, restart, time.monotonic(), process))

    def wait(self) -> int:
        """Until a signal comes, or a member ends that should not; the exit code."""
        while self._stop is None:
            for member in list(self._members):
                code = member.process.poll()
                if code is None:
                    continue
                self._members.remove(member)
                if not member.restart or time.monotonic() - member.started < QUICK:
                    click.echo(f" * The {member.name} ended with code {code}.", err=True)
                    return code or 1
                click.echo(
                    f" * The {member.name} ended with code {code}; starting another.", err=True
                )
                self.start(member.name, member.command, restart=True)
            time.sleep(0.1)
        return 0

    def __exit__(self, *exc: object) -> None:
        for member in self._members:
            # The reloader runs the app in a child of its own, so the whole session is told.
            _signal(member.process, signal.SIGTERM)
        deadline = time.monotonic() + 40
        for member in self._members:
            try:
                member.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(member.process, signal.SIGKILL)
                member.process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
