"""What is measured, a file each: ``measure`` gives rows of raw figures, ``tables`` reads them."""

from __future__ import annotations

import typing as t

from . import backlog, delayed, enqueue, growth, memory, mixed, pickup, throughput
from .base import Bench, Row, Table

__all__ = ["ALL", "LONG", "Part"]


class Part(t.Protocol):
    """What a module of this package offers."""

    def measure(self, bench: Bench) -> list[Row]: ...
    def tables(self, rows: list[Row]) -> list[Table]: ...


ALL: dict[str, Part] = {
    "throughput": throughput,
    "enqueue": enqueue,
    "pickup": pickup,
    "delayed": delayed,
    "mixed": mixed,
    "memory": memory,
    "backlog": backlog,
    "growth": growth,
}
#: Those that take too long for every day.
LONG = {"growth"}
