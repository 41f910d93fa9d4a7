"""A wall clock that is wrong by ``CHAOS_SHIFT`` seconds, for a process with this on its path.

Not by Debian's libfaketime 0.9.10: it shifts the monotonic clock too, or else makes ``time.sleep``
of Python 3.11 fail (EINVAL).
"""

from __future__ import annotations

import datetime
import os
import time
import typing as t

shift = float(os.environ.get("CHAOS_SHIFT") or 0)
_time, _time_ns = time.time, time.time_ns
_real = datetime.datetime


class _Meta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _real)


class _Shifted(_real, metaclass=_Meta):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> t.Any:
        return _real.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> t.Any:
        return _real.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls) -> t.Any:
        return cls.now()


if shift:
    time.time = lambda: _time() + shift
    time.time_ns = lambda: _time_ns() + int(shift * 1e9)
    datetime.datetime = _Shifted  # type: ignore[misc]
