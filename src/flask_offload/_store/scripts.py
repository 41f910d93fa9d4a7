"""The Lua files beside this module: one transition each, atomic on the server."""

from __future__ import annotations

import hashlib
import re
import typing as t
from functools import cache
from importlib.resources import files

import redis
from redis.exceptions import NoScriptError

if t.TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from .connection import Link

__all__ = ["command", "read_all", "run", "run_all"]

#: A transition that begins with another one takes its file as a function.
INCLUDE = re.compile(r"^-- include (\w+) as (\w+)$", re.MULTILINE)
#: How one begins that uses nothing of what all scripts share.
ALONE = "-- stands alone"
#: The statements of what all scripts share, and the names that one defines.
_STATEMENTS = re.compile(r"^(?=local )", re.MULTILINE)
_NAMES = re.compile(r"local (?:function )?([\w, ]+)")
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)

#: What happened is counted last, wherever a transition returns.
_END = "local answer = transition()\nsave_counts()\nreturn answer"


@cache
def _load(name: str) -> tuple[str, str]:
    text = _text(name)
    header, _, body = text.partition("\n")
    if body.startswith(ALONE):
        return text, _digest(text)
    body = INCLUDE.sub(lambda found: _function(found[1], found[2]), body)
    # The shebang must be the first line; what all scripts share comes right after it.
    shared = _used(_text("_shared"), body)
    source = f"{header}\n{shared}\nlocal function transition()\n{body}\nend\n{_END}"
    return source, _digest(source)


def _digest(source: str) -> str:
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


def _used(shared: str, body: str) -> str:
    """What a transition uses of what all share: a function costs time in each call that it is
    defined in, also when it is not called."""
    text, kept = _COMMENT.sub("", f"{body}\n{_END}"), ""
    for statement in reversed(_STATEMENTS.split(shared)):
        found = _NAMES.match(statement)
        names = re.findall(r"\w+", found[1]) if found else []
        if not names or any(re.search(rf"\b{name}\b", text) for name in names):
            kept = statement + kept
            text += _COMMENT.sub("", statement)
    return kept


def read_all() -> None:
    """Read them now; they are kept, and a process that is forked later has no work with them."""
    for file in _folder().iterdir():
        name, _, ending = file.name.partition(".")
        if ending == "lua" and not name.startswith("_"):
            _load(name)


def _folder() -> Traversable:
    return files("flask_offload._store") / "lua"


def _text(name: str) -> str:
    return (_folder() / f"{name}.lua").read_text("utf-8")


def _function(name: str, function: str) -> str:
    return f"local function {function}()\n{_text(name).partition(chr(10))[2]}\nend"


def run(link: Link, name: str, keys: t.Sequence[str], args: t.Sequence[t.Any]) -> t.Any:
    """Run ``lua/<name>.lua``; send its source only to a server that has not seen it."""
    try:
        return link.call("EVALSHA", _load(name)[1], len(keys), *keys, *args)
    except NoScriptError:
        return link.call("EVAL", _load(name)[0], len(keys), *keys, *args)


def command(name: str, keys: t.Sequence[str], args: t.Sequence[t.Any]) -> tuple[t.Any, ...]:
    """The command that runs ``lua/<name>.lua`` on a server that has seen it."""
    return ("EVALSHA", _load(name)[1], len(keys), *keys, *args)


def run_all(
    link: Link, name: str, calls: t.Sequence[tuple[t.Sequence[str], t.Sequence[t.Any]]]
) -> list[t.Any]:
    """Run one script several times, with keys and arguments each, in one round trip."""
    (keys, args), *rest = calls
    # The first by itself, so that the server knows the script.
    answers = [run(link, name, keys, args)]
    if rest:
        answers += link.pipeline([command(name, keys, args) for keys, args in rest])
    for answer in answers:
        if isinstance(answer, redis.ResponseError):
            raise answer
    return answers
