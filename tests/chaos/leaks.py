"""What may be on the server once all work is done."""

from __future__ import annotations

import re
import typing as t

__all__ = ["leaks"]

#: Bounded by what is kept, or by how many queues there are; pruned with the records.
STAY = r"events|jobs|owner:.*|expiry|workers|queues|arrivals|pulse|paused|totals|dead|place.*"
#: Must have a lifetime.
EXPIRE = r"(job|log|result|worker|parked|delivery|file|unique|group|chord|minute):.*|next|apart"
#: kombu's own; bindings and pidboxes of live workers.
KOMBU = r"_kombu\.binding.*|.*\.reply\.celery\.pidbox|.*celery\.pidbox|celeryev\..*"
#: A marker that wakes a worker holds no work, and there is one a queue at most.
MARKER = r"wake:.*"


def leaks(client: t.Any, prefix: str) -> list[str]:
    """One line for each key that nothing will remove, or that still holds work.

    :param prefix: Of the namespace; there must be no key outside it.
    """
    found = []
    for key in client.scan_iter(count=1000):
        name = str(key).removeprefix(prefix)
        if not str(key).startswith(prefix):
            found.append(f"outside of the namespace: {key}")
        elif re.fullmatch(f"{STAY}|{KOMBU}", name, re.DOTALL):
            continue
        elif re.fullmatch(MARKER, name, re.DOTALL):
            if client.type(key) == "list" and client.llen(key) > 1:
                found.append(f"markers pile up: {key}")
        elif re.fullmatch(EXPIRE, name, re.DOTALL):
            if client.ttl(key) == -1:
                found.append(f"without a lifetime: {key}")
        else:
            found.append(f"holds work, or is unknown: {key}")
    return found
