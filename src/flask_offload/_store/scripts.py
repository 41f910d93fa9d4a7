"""The Lua files beside this module: one transition each, atomic on the server."""

from __future__ import annotations

import hashlib
import typing as t
from functools import cache
from importlib.resources import files

from redis.exceptions import NoScriptError

if t.TYPE_CHECKING:
    from .connection import Link

__all__ = ["run"]


@cache
def _load(name: str) -> tuple[str, str]:
    folder = files("flask_offload._store") / "lua"
    header, _, body = (folder / f"{name}.lua").read_text("utf-8").partition("\n")
    # The shebang must be the first line; what all scripts share comes right after it.
    source = f"{header}\n{(folder / '_shared.lua').read_text('utf-8')}\n{body}"
    return source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


def run(link: Link, name: str, keys: t.Sequence[str], args: t.Sequence[t.Any]) -> t.Any:
    """Run ``lua/<name>.lua``; send its source only to a server that has not seen it."""
    source, digest = _load(name)
    try:
        return link.call("EVALSHA", digest, len(keys), *keys, *args)
    except NoScriptError:
        return link.call("EVAL", source, len(keys), *keys, *args)
