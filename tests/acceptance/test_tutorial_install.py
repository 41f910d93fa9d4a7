"""``make demo`` as on the day one meets it: nothing installed, a bare environment."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from servers import free_port
from tutorial import EXAMPLE, Person, Program

ROOT = EXAMPLE.parents[1]
#: What says how this machine reaches the package index.
INDEX = ("PIP_", "SSL_CERT", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@pytest.mark.skipif(not shutil.which("make"), reason="needs make: apt-get install make")
@pytest.mark.timeout(300)
def test_make_demo_needs_nothing_but_python_and_make(tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns(".*", "instance", "__pycache__", "build", "dist")
    clone = Path(shutil.copytree(ROOT, tmp_path / "clone", ignore=ignore))
    port = free_port()
    env = {key: value for key, value in os.environ.items() if key.startswith(INDEX)}
    env |= {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHON": sys.executable,
        "PORT": str(port),
    }
    program = Program(["make", "demo"], clone, env, tmp_path / "make.log")
    try:
        program.wait_for(r"\bready\.", timeout=240)
        program.wait_for(r"Running on http")
        with Person(f"http://127.0.0.1:{port}") as person:
            started = person.fill("/report", month="2026-03", size="2")
            person.wait_for_job(started.headers["Location"])
    finally:
        program.press_ctrl_c()
        program.process.wait(60)
