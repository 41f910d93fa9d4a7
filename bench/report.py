"""The tables of a run: ``python -m bench.report bench/results/<date>.json`` prints them again."""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path

from .parts import ALL
from .parts.base import Table

__all__ = ["render"]


def render(run: dict[str, t.Any]) -> str:
    """Markdown for the raw data of a run."""
    about = run["about"]
    text = [f"# {about['date']}", ""]
    text += [f"- {key}: {value}" for key, value in about.items() if key != "date"]
    for name, rows in run["parts"].items():
        for table in ALL[name].tables(rows) if rows else []:
            text += ["", *_table(table)]
    if run["failures"]:
        text += ["", "## Failed", "", *(f"- {_line(failure)}" for failure in run["failures"])]
    return "\n".join(text) + "\n"


def _table(table: Table) -> t.Iterator[str]:
    yield f"## {table.title}"
    yield ""
    yield f"| {' | '.join(table.head)} |"
    yield "|" + "---|" * len(table.head)
    for line in table.lines:
        yield f"| {' | '.join(line)} |"
    if table.note:
        yield from ("", table.note)


def _line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.stdout.write(render(json.loads(Path(sys.argv[1]).read_text())))
