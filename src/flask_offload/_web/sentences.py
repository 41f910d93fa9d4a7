"""Sentences in which times tick.

A sentence is a sequence of parts. Most are text; a :class:`Moment` is a time that the page shows
in the reader's zone and counts on its own, so that nothing has to be sent for a clock to tick.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .reading import about, ago, clock, duration, iso
from .texts import gettext as _

__all__ = ["Code", "Moment", "Part", "around", "parts_json", "plain"]


@dataclass(frozen=True, slots=True)
class Moment:
    """A time within a sentence.

    :param at: Seconds since the epoch.
    :param style: ``clock`` ("14:05"), ``ago`` ("3 min ago"), ``for`` ("12 s", since then), ``in``
        ("in 30 s", "now" once over) or ``left`` (" · about 20 s left", nothing once over: the
        estimate was wrong).
    """

    at: float
    style: t.Literal["clock", "ago", "for", "in", "left"]

    def text(self, now: float) -> str:
        """What it reads at the time ``now``."""
        if self.style == "clock":
            return clock(self.at, now)
        if self.style == "ago":
            return ago(now - self.at)
        if self.style == "for":
            return duration(max(1, now - self.at))
        left = self.at - now
        if self.style == "in":
            return _("in %(time)s", time=duration(left)) if left >= 1 else _("now")
        return " · " + _("about %(time)s left", time=about(left)) if left > 0 else ""


@dataclass(frozen=True, slots=True)
class Code:
    """A command within a sentence."""

    command: str


Part = str | Moment | Code


def around(text: str, name: str, part: Part) -> tuple[Part, ...]:
    """A text with a part where its ``%(name)s`` is; a translation may have it anywhere."""
    before, _found, after = text.partition(f"%({name})s")
    return tuple(each for each in (before, part, after) if each)


def plain(parts: t.Iterable[Part], now: float) -> str:
    """A sentence as text."""
    return "".join(_plain(part, now) for part in parts)


def _plain(part: Part, now: float) -> str:
    if isinstance(part, Moment):
        return part.text(now)
    return f"`{part.command}`" if isinstance(part, Code) else part


def parts_json(parts: t.Iterable[Part]) -> list[t.Any]:
    """A sentence as JSON, for our script: texts, ``{"time", "as"}``, ``{"code"}``."""
    found: list[t.Any] = []
    for part in parts:
        if isinstance(part, Moment):
            found.append({"time": iso(part.at), "as": part.style})
        elif isinstance(part, Code):
            found.append({"code": part.command})
        elif part:
            found.append(part)
    return found
