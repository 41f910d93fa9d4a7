"""Where the time of a job goes: ``python -m bench.profiles``.

Attaches ``py-spy`` (``pip install py-spy``, anywhere on the PATH) to a worker that drains no-ops,
and to a process that enqueues some. Of each it writes to ``results/`` the twenty functions in which
it was most often found holding the interpreter, and the twenty in or below which it was.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from .parts.base import Bench, find
from .processes import BenchError
from .server import Server

__all__ = ["main"]

RATE = 500
RESULTS = Path(__file__).parent / "results"
#: What every sample has above what is ours to change.
_FRAME = ("threading.py", "runpy", "celery/bin", "celery/__main__", "click/", "bootsteps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--side", default="ours: threads 8")
    options = parser.parse_args()
    if not shutil.which("py-spy"):
        raise SystemExit("py-spy is not on the PATH. Install it: pip install py-spy")
    server = Server()
    try:
        bench = Bench(server, 0, 1, 0, {"ours"}, False)
        text = _worker(bench, options.side, options.seconds) + _producer(bench, options.seconds)
    finally:
        server.stop()
    now = datetime.now(UTC)
    kept = RESULTS / f"{now:%Y-%m-%d}-profile.md"
    kept.write_text(f"# {now:%Y-%m-%d %H:%M} UTC, by py-spy, {RATE} samples a second\n{text}")
    print(text)
    print(f"Written to {kept.name}.", file=sys.stderr)


def _worker(bench: Bench, name: str, seconds: int) -> str:
    side = find(name)
    jobs = 25_000 * (seconds + 2)
    bench.reset()
    bench.fill(side, jobs)
    with bench.workers(side) as workers:
        bench.wait_done(side, workers, jobs, jobs // 20)
        return _shown(f"Worker, {side.topology}", _record(workers.pids()[0], seconds, bench))


def _producer(bench: Bench, seconds: int) -> str:
    bench.reset()
    with bench.client("ours", "delays", jobs=20_000 * (seconds + 2)) as client:
        client.begin()
        return _shown("Producer, one delay() after the other", _record(client.pid, seconds, bench))


def _record(pid: int, seconds: int, bench: Bench) -> list[tuple[list[str], int]]:
    out = bench.server.folder / "samples.txt"
    command = ["py-spy", "record", "--gil", "--format", "raw", "--rate", str(RATE)]
    command += ["--duration", str(seconds), "--output", str(out), "--pid", str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"py-spy failed: {done.stderr[-300:]}")
    samples = []
    for line in out.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        samples.append(([_short(frame) for frame in stack.split(";")], int(count)))
    return samples


def _short(frame: str) -> str:
    """A function and its file, without the line."""
    name, _, place = frame.partition(" (")
    return f"{name} ({place.rpartition(':')[0]})"


def _shown(title: str, samples: list[tuple[list[str], int]]) -> str:
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for stack, count in samples:
        own[stack[-1]] += count
        below.update(dict.fromkeys(stack, count))
    for frame in list(below):
        if any(part in frame for part in _FRAME):
            del below[frame]
    total = sum(own.values())
    lines = [f"\n## {title}: {total:,} samples\n", "| own | function | in or below | function |"]
    lines.append("|---|---|---|---|")
    for (first, n), (second, m) in zip(own.most_common(20), below.most_common(20), strict=False):
        lines.append(f"| {n / total:.1%} | `{first}` | {m / total:.1%} | `{second}` |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
