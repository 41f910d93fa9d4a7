"""The log of a job as a text file."""

from __future__ import annotations

import re
import typing as t

from flask import Response

from .._jobs import JobRecord, LogLine
from .reading import iso
from .texts import gettext as _

__all__ = ["log_text"]


def log_text(record: JobRecord, lines: t.Iterable[LogLine]) -> Response:
    """A download; each line with its time, in UTC."""
    first = []
    if record.log_dropped:
        first = [_("The first %(number)s lines are no longer kept.", number=record.log_dropped)]
    text = "".join(f"{line}\n" for line in (*first, *(f"{iso(x.at)} {x.text}" for x in lines)))
    response = Response(text.encode("utf-8", "replace"), mimetype="text/plain")
    # An id is the client's to choose.
    name = re.sub(r"[^\w.-]", "_", record.id, flags=re.ASCII)[:80]
    response.headers["Content-Disposition"] = f'attachment; filename="log-{name}.txt"'
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response
