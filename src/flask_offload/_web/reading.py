"""How times, spans and sizes read. The script of the page does the same with the reader's clock,
in the words of :func:`patterns`."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from .texts import gettext as _

__all__ = [
    "about",
    "ago",
    "clock",
    "coarse",
    "duration",
    "iso",
    "number",
    "patterns",
    "place",
    "size",
]

#: The last second that :mod:`datetime` knows; a countdown may be set beyond it.
END_OF_TIME = 253_402_300_799.0


def utc(at: float) -> datetime:
    """A time in seconds since the epoch as a date in UTC."""
    return datetime.fromtimestamp(min(at, END_OF_TIME), UTC)


def iso(at: float | None) -> str | None:
    """A time in ISO 8601, UTC, with milliseconds."""
    return utc(at).isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else None


def patterns() -> dict[str, str]:
    """The words that times are told in."""
    return {
        "instant": _("less than 1 s"),
        "s": _("%(number)s s"),
        "min": _("%(number)s min"),
        "h": _("%(number)s h"),
        "d": _("%(number)s d"),
        "just_now": _("just now"),
        "ago": _("%(time)s ago"),
        "in": _("in %(time)s"),
        "now": _("now"),
        "left": _("about %(time)s left"),
    }


def _unit(number: int, unit: str) -> str:
    return patterns()[unit] % {"number": number}


def clock(at: float, now: float) -> str:
    """A time of day, with the date unless that is today. In UTC, as only a browser knows better.

    >>> clock(3600, 0), clock(90_000, 0)
    ('01:00 UTC', '2 Jan 01:00 UTC')
    """
    then = utc(at)
    day = "" if then.date() == utc(now).date() else f"{then.day} {then:%b} "
    return f"{day}{then:%H:%M} UTC"


def duration(seconds: float) -> str:
    """
    >>> duration(0.2), duration(12.4), duration(125), duration(3900), duration(180_000)
    ('less than 1 s', '12 s', '2 min 5 s', '1 h 5 min', '2 d 2 h')
    """
    whole = int(max(0, seconds))
    if whole < 1:
        return _("less than 1 s")
    if whole < 60:
        return _unit(whole, "s")
    if whole < 3600:
        return _two(whole, 60, "min", 1, "s")
    if whole < 86_400:
        return _two(whole, 3600, "h", 60, "min")
    return _two(whole, 86_400, "d", 3600, "h")


def _two(whole: int, large: int, large_unit: str, small: int, small_unit: str) -> str:
    rest = whole % large // small
    return _unit(whole // large, large_unit) + (f" {_unit(rest, small_unit)}" if rest else "")


def coarse(seconds: float) -> int:
    """An estimate in steps as large as it deserves.

    >>> coarse(3), coarse(18), coarse(70), coarse(9000)
    (5, 20, 120, 10800)
    """
    step = 5 if seconds <= 55 else 60 if seconds <= 3600 else 3600
    return max(1, math.ceil(seconds / step)) * step


def about(seconds: float) -> str:
    """A span as coarse as an estimate deserves.

    >>> about(3), about(18), about(70), about(600), about(9000)
    ('5 s', '20 s', '2 min', '10 min', '3 h')
    """
    whole = coarse(seconds)
    unit, length = ("s", 1) if whole < 60 else ("min", 60) if whole <= 3600 else ("h", 3600)
    return _unit(whole // length, unit)


def ago(seconds: float) -> str:
    """
    >>> ago(3), ago(90), ago(4000), ago(200_000)
    ('just now', '1 min ago', '1 h ago', '2 d ago')
    """
    if seconds < 60:
        return _("just now")
    units = (("d", 86_400), ("h", 3600), ("min", 60))
    unit, length = next((u, n) for u, n in units if seconds >= n)
    return _("%(time)s ago", time=_unit(int(seconds / length), unit))


def place(number: int) -> str:
    """
    >>> place(1), place(2), place(3), place(11), place(1021)
    ('1st in line', '2nd in line', '3rd in line', '11th in line', '1,021st in line')
    """
    teens = number % 100 in (11, 12, 13)
    match 0 if teens else number % 10:
        case 1:
            text = _("%(number)sst in line")
        case 2:
            text = _("%(number)snd in line")
        case 3:
            text = _("%(number)srd in line")
        case _:
            text = _("%(number)sth in line")
    return text % {"number": f"{number:,}"}


def size(count: float) -> str:
    """
    >>> size(12), size(34_100), size(1_250_000)
    ('12 bytes', '34 KB', '1.2 MB')
    """
    if count < 1000:
        return _("%(number)s bytes", number=f"{count:g}")
    if count < 999_500:
        return f"{count / 1000:.0f} KB"
    return f"{count / 1_000_000:.1f} MB"


def number(value: float) -> str:
    """
    >>> number(24.0), number(1_250_000), number(0.25)
    ('24', '1,250,000', '0.2')
    """
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
