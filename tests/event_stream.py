"""Server-Sent Events, as a client reads them."""

from __future__ import annotations

import json
import typing as t
from contextlib import contextmanager

import httpx

Event = tuple[str, dict[str, t.Any], str]


def events(lines: t.Iterable[str]) -> t.Iterator[Event]:
    """The events of a stream: name, data, id. A comment is an event of its own."""
    name = data = last_id = ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            data = value
        elif field == "id":
            last_id = value
        elif line.startswith(":"):
            yield "comment", {}, ""
        elif not line and name:
            yield name, json.loads(data), last_id
            name = data = ""


@contextmanager
def stream(client: httpx.Client, url: str, **headers: str) -> t.Iterator[t.Iterator[Event]]:
    with client.stream("GET", url, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield events(response.iter_lines())
