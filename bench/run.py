"""``python -m bench.run``: all measurements in one run; see ``README.md``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
import typing as t
from datetime import UTC, datetime
from pathlib import Path

from .environments import ROOT, ensure, python_of
from .parts import ALL, LONG
from .parts.base import Bench
from .report import render
from .server import Server
from .sides import PEERS

RESULTS = ROOT / "bench" / "results"


def main() -> None:
    given = arguments()
    # A run that is told to end ends its processes, too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    peers = set(given.peers.split(","))
    for peer in sorted(peers):
        ensure(PEERS[peer].module)
    server = Server()
    try:
        bench = Bench(server, given.jobs, given.rounds, given.backlog, peers, given.long)
        run: dict[str, t.Any] = {"about": about(bench), "parts": {}, "failures": bench.failures}
        name_of_run = run["about"]["date"][:10]
        if (given.results / f"{name_of_run}.json").exists():
            name_of_run = datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
        for name in given.only.split(","):
            started = time.monotonic()
            print(f"{name} ...", file=sys.stderr, flush=True)
            run["parts"][name] = ALL[name].measure(bench)
            print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            save(
                run, given.results / name_of_run
            )  # what there is survives a run that is broken off
    finally:
        server.stop()
    print(render(run))
    sys.exit(bool(run["failures"]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    long = bool(os.environ.get("BENCH_LONG"))
    short = [name for name in ALL if name not in LONG]
    others = [name for name in PEERS if name != "ping"]
    add = parser.add_argument
    add("--long", action="store_true", default=long, help="all, in hours (BENCH_LONG=1)")
    add("--only", default="", help=f"parts, with commas: {','.join(ALL)}")
    add("--peers", default=",".join(others), help="with commas (default: %(default)s)")
    add("--jobs", type=int, default=5_000, help="of a round, before the weight of a side")
    add("--rounds", type=int, default=3)
    add(
        "--backlog",
        type=int,
        default=0,
        help="jobs that wait, most of them (default: 100,000; long: 1,000,000)",
    )
    add("--results", type=Path, default=RESULTS, help="where the files go (default: %(default)s)")
    given = parser.parse_args()
    given.only = given.only or ",".join(ALL if given.long else short)
    given.backlog = given.backlog or (1_000_000 if given.long else 100_000)
    for name, known in ((given.only, ALL), (given.peers, others)):
        if unknown := set(name.split(",")) - set(known):
            parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return given


def about(bench: Bench) -> dict[str, str]:
    """What a reader must know to repeat it."""
    packages = "celery,kombu,redis,hiredis,flask,dramatiq,huey,taskiq,taskiq-redis,rq"
    code = (
        "import importlib.metadata as m, sys\n"
        "for d in m.distributions():\n"
        f"    if d.name.lower() in {packages.split(',')!r}: print(d.name, d.version)"
    )
    found: dict[str, None] = {}
    for peer in sorted(bench.peers):
        command = [str(python_of(PEERS[peer].module)), "-c", code]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found |= dict.fromkeys(output.splitlines())
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    cores = len(os.sched_getaffinity(0))
    git: t.Any = {"capture_output": True, "text": True, "cwd": ROOT}
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], **git).stdout.strip()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit,
        "machine": f"{cores} cores, {names[0].split(': ')[1] if names else platform.machine()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "Python": platform.python_version(),
        "server": bench.server.version,
        "server options": " ".join(f"{k}={v or repr('')}" for k, v in bench.server.options.items()),
        "packages": ", ".join(sorted(found)),
        "form": f"{bench.jobs:,} jobs, {bench.rounds} rounds, backlog {bench.backlog:,}",
    }


def save(run: dict[str, t.Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(run, indent=1) + "\n")
    path.with_suffix(".md").write_text(render(run))


if __name__ == "__main__":
    main()
