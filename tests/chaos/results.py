"""What was measured: one JSON line a row, column and run, and the table of them."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["FILE", "Result", "render"]

FILE = Path(os.environ.get("CHAOS_RESULTS") or Path(__file__).with_name(".results.jsonl"))
PAGE = Path(__file__).parents[2] / "docs" / "chaos.md"
BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"


@dataclass
class Result:
    """One row of the table in one column (what carries the messages, and the pool)."""

    row: int
    fault: str
    must: str
    column: str
    scale: float
    numbers: dict[str, t.Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def note(self, **numbers: t.Any) -> None:
        for name, number in numbers.items():
            self.numbers[name] = round(number, 2) if isinstance(number, float) else number

    def promise(self, kept: bool, what: str) -> None:
        """Note whether a promise was kept; all of them are looked at before the test fails."""
        if not kept and what not in self.broken:
            self.broken.append(what)

    def write(self) -> None:
        line = {
            name: getattr(self, name)
            for name in ("row", "fault", "must", "column", "scale", "numbers", "broken")
        }
        line["seconds"] = round(time.monotonic() - self.started, 1)
        with FILE.open("a") as file:
            file.write(json.dumps(line) + "\n")


def render(file: Path = FILE) -> str:
    """The table in Markdown; of several runs of a row in a column, the last."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    cells = {(line["row"], line["column"]): line for line in lines}
    # Ours first; "stock" sorts last.
    columns = sorted({line["column"] for line in lines})
    rows = {line["row"]: line for line in lines}
    table = [
        "| # | fault | must show | " + " | ".join(columns) + " |",
        "|---|---|---|" + "---|" * len(columns),
    ]
    for row in sorted(rows):
        texts = [_cell(cells.get((row, column))) for column in columns]
        head = f"| {row} | {rows[row]['fault']} | {rows[row]['must']} | "
        table.append(head + " | ".join(texts) + " |")
    return "\n".join(table)


def _cell(line: dict[str, t.Any] | None) -> str:
    if line is None:
        return ""
    numbers = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in line["numbers"].items())
    # What was found of each is in the lines of the file; here it would fill the page.
    broken = "; ".join(dict.fromkeys(re.split(r" \[|: <| \{", what)[0] for what in line["broken"]))
    return f"**broken: {broken}**. {numbers}" if broken else numbers


def main() -> None:
    table = render()
    print(table)
    if PAGE.exists():
        before, _, rest = PAGE.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")
        print(f"\nWritten to {PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main()
