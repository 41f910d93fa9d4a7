"""How a page shows a result, by its kind. Pure."""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass
from urllib.parse import urlsplit

from .._jobs import JobRecord, JobState
from .links import Links
from .reading import size

__all__ = ["PREVIEWS", "Node", "Result", "result_of", "tree"]

#: Characters of a result that a page shows; the rest is a click away.
SHOWN = 20_000
#: Rows and columns of a table that a page shows.
ROWS, COLUMNS = 200, 20
#: Values of a tree, and levels of it, that a page shows.
NODES, DEPTH = 1_000, 12
#: Levels of a tree that are open at first.
OPEN = 2

#: What a browser shows within a page and cannot run, and as what.
PREVIEWS: dict[str, t.Literal["image", "pdf"]] = {
    "application/pdf": "pdf",
    "image/gif": "image",
    "image/jpeg": "image",
    "image/png": "image",
    "image/webp": "image",
}

Kind = t.Literal["text", "link", "file", "image", "pdf", "table", "json", ""]
Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a tree.

    :param label: Its name, or its number in a list from 1.
    :param text: A value as JSON; of a list or an object, how many it holds.
    :param children: ``None`` for a value.
    """

    label: str
    kind: t.Literal["object", "list", "text", "number", "word"]
    text: str
    children: list[Node] | None = None
    open: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """A value of a table."""

    text: str
    kind: t.Literal["number", "short", ""] = ""


@dataclass(frozen=True, slots=True)
class Result:
    """
    :param kind: ``text``, ``link``, ``file``, ``image``, ``pdf``, ``table`` or ``json``; empty
        where there is nothing to show.
    :param text: What to show; of a file, its name.
    :param url: Where a link or file leads.
    :param size: Of a file, in words.
    :param whole: Address of the whole result, where it had to be cut.
    :param head, rows: Of a table.
    :param tree: Of JSON.
    """

    kind: Kind = ""
    text: str = ""
    url: str = ""
    size: str = ""
    whole: str = ""
    head: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    tree: Node | None = None


def result_of(record: JobRecord, links: Links) -> Result:
    """How to show the result of a job that succeeded."""
    value = record.result
    if record.state is not JobState.SUCCEEDED or value is None or value in ("", [], {}):
        return Result()
    if isinstance(value, str):
        if _is_link(value):
            return Result("link", value, value)
        if len(value) <= SHOWN:
            return Result("text", value)
        return Result("text", value[:SHOWN] + " …", whole=links.to(format="json"))
    if isinstance(value, dict):
        for file in record.files:
            if value.get("name") == file["name"]:
                kind: Kind = PREVIEWS.get(file["content_type"], "file")
                return Result(kind, file["name"], links.file(file["name"]), size(file["size"]))
    if isinstance(value, list) and (table := _table(value, links)):
        return table
    if isinstance(value, dict | list):
        left = [NODES]
        root = tree("", value, left)
        # The text is for who takes it along; a tree cannot be marked and copied.
        text = json.dumps(value, indent=2, ensure_ascii=False)
        cut = left[0] <= 0 or len(text) > SHOWN
        return Result("json", text[:SHOWN], tree=root, whole=links.to(format="json") if cut else "")
    return Result("text", json.dumps(value))


# -- tables


def _table(value: list[t.Any], links: Links) -> Result | None:
    """A list of objects, or of lists of one length, whose values are no lists themselves."""
    head: tuple[str, ...] = ()
    rows: list[t.Sequence[t.Any]]
    if all(isinstance(row, dict) and row for row in value):
        head = tuple(dict.fromkeys(str(name) for row in value for name in row))
        rows = [[row.get(name) for name in head] for row in value]
    elif len(value) > 1 and all(isinstance(row, list) and row for row in value):
        rows = value
    else:
        return None
    widths = {len(row) for row in rows}
    if len(widths) != 1 or max(widths) > COLUMNS:
        return None
    if not all(isinstance(cell, Value) for row in rows for cell in row):
        return None
    shown = tuple(tuple(_cell(cell) for cell in row) for row in rows[:ROWS])
    cut = len(rows) > ROWS or any(len(str(cell)) > CELL for row in rows[:ROWS] for cell in row)
    return Result("table", head=head, rows=shown, whole=links.to(format="json") if cut else "")


#: Characters of a cell that a page shows, and of one that stays on one line.
CELL, SHORT = 500, 16


def _cell(value: Value) -> Cell:
    if value is None:
        return Cell("")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(json.dumps(value), "number")
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) > CELL:
        return Cell(text[:CELL] + "…")
    # A date or a name is not to be broken on a narrow screen; a sentence is.
    return Cell(text, "short" if len(text) <= SHORT else "")


# -- trees


def tree(label: str, value: t.Any, left: list[int], depth: int = 0) -> Node:
    """A value as a tree.

    :param left: How many values may still be shown; counted down.
    """
    left[0] -= 1
    if isinstance(value, dict | list) and depth >= DEPTH:
        return Node(label, "word", "…")
    if isinstance(value, dict):
        pairs = [(str(name), each) for name, each in value.items()]
        kind: t.Literal["object", "list"] = "object"
    elif isinstance(value, list):
        pairs = [(str(number), each) for number, each in enumerate(value, 1)]
        kind = "list"
    else:
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, str):
            return Node(label, "text", value if len(value) <= SHOWN else value[:SHOWN] + " …")
        plain = value is None or isinstance(value, bool)
        return Node(label, "word" if plain else "number", text)
    children = []
    for name, each in pairs:
        if left[0] <= 0:
            children.append(Node("", "word", "…"))
            break
        children.append(tree(name, each, left, depth + 1))
    return Node(label, kind, f"{len(pairs):,}", children, open=depth < OPEN and len(pairs) <= 50)


def _is_link(value: str) -> bool:
    if not value.startswith(("http://", "https://")) or len(value) > 2_000:
        return False
    # A space or control character in it: a text that begins with an address.
    if not value.isprintable() or " " in value:
        return False
    try:
        return bool(urlsplit(value).hostname)
    except ValueError:
        return False
