"""Messages as the server keeps them: without what is the same in all of them.

One line of JSON, a list of the few values that differ from message to message, and then the body as
it is. A message that this could not give back exactly is kept whole, as a JSON object, as all of
them were once.
"""

from __future__ import annotations

import base64
import json
import typing as t

from kombu.utils import json as kombu_json

__all__ = [
    "EMBED",
    "LISTED",
    "USUAL",
    "Opened",
    "Parts",
    "line",
    "opened",
    "pack",
    "parts",
    "quoted",
    "unpack",
]

Message = dict[str, t.Any]

#: The end of the body of a message that is no part of a canvas, which goes without saying.
EMBED = ', {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
#: In the order of the list.
LISTED = ("task", "argsrepr", "kwargsrepr", "origin")
#: Headers as they mostly are.
USUAL: dict[str, t.Any] = {
    "lang": "py",
    "shadow": None,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": [None, None],
    "parent_id": None,
    "ignore_result": False,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
}
#: Made for each delivery.
GIVEN = "delivery_tag"

_encode = json.JSONEncoder(separators=(",", ":")).encode
#: A text as JSON.
quoted = json.encoder.encode_basestring_ascii


def pack(message: Message, queue: str) -> str:
    """A message as text, for the line ``queue``."""
    try:
        text = _pack(message, queue)
    except (KeyError, ValueError, TypeError, AttributeError):
        text = ""  # of another client, in a form of its own
    return text or json.dumps(message)


def _pack(message: Message, queue: str) -> str:
    headers, properties = message["headers"], message["properties"]
    raw = base64.b64decode(message["body"], validate=True)
    body = raw.decode()
    job_id = headers["id"]
    usual_headers, usual_properties = _usual(job_id, queue)
    other_headers = _unusual(headers, usual_headers, LISTED)
    other_properties = _unusual(properties, usual_properties, ())
    values = [headers[name] for name in LISTED] + [properties["reply_to"]]
    exact = (
        message.keys() == {"body", "content-encoding", "content-type", "headers", "properties"}
        and (message["content-type"], message["content-encoding"]) == ("application/json", "utf-8")
        and all(isinstance(value, str) for value in [job_id, *values])
        and "compression" not in headers
        and body.startswith("[")
        and body.endswith("]")
        and base64.b64encode(raw).decode() == message["body"]
        and other_headers is not None
        and other_properties is not None
    )
    return line(values, other_headers, other_properties, body) if exact else ""


def line(values: list[str], headers: Message | None, properties: Message | None, body: str) -> str:
    """The stored form.

    :param values: Those of :data:`LISTED`, and the property ``reply_to``.
    :param headers, properties: Those that are not as usual.
    """
    more = f",{_encode(headers or {})},{_encode(properties or {})}" if headers or properties else ""
    return f"[{','.join(map(quoted, values))}{more}]\n{body.removesuffix(EMBED)}"


def _usual(job_id: str, queue: str) -> tuple[Message, Message]:
    headers = {**USUAL, "id": job_id, "root_id": job_id}
    headers["timelimit"], headers["stamps"] = [None, None], {}
    return headers, {
        "correlation_id": job_id,
        "body_encoding": "base64",
        "delivery_info": {"exchange": "", "routing_key": queue},
        "delivery_mode": 2,
        "priority": 0,
    }


def _unusual(given: Message, usual: Message, listed: tuple[str, ...]) -> Message | None:
    """What of ``given`` is not as usual; ``None`` if something is missing."""
    if not usual.keys() <= given.keys():
        return None
    elsewhere = {*listed, "reply_to", GIVEN}
    return {
        name: value
        for name, value in given.items()
        if name not in elsewhere
        # 0 and False are equal, and are not the same to whom a message is for.
        and not (name in usual and usual[name] == value and type(usual[name]) is type(value))
    }


class Parts(t.NamedTuple):
    """What a stored message says that is not the same in all.

    :param headers, properties: Those that are not as usual.
    :param body: JSON; without its end, which is that of :data:`EMBED`, if that is ``cut``.
    """

    task: str
    argsrepr: str
    kwargsrepr: str
    origin: str
    reply_to: str
    headers: Message
    properties: Message
    body: str
    cut: bool


def parts(text: str) -> Parts | None:
    """What is in a message that was packed; ``None`` if it was kept whole.

    :raises ValueError, TypeError: It cannot be read.
    """
    if not text.startswith("["):
        return None
    head, _, body = text.partition("\n")
    task, argsrepr, kwargsrepr, origin, reply_to, *more = json.loads(head)
    headers, properties = more or ({}, {})
    # A whole body is a list; one that lacks its end has that of the keyword arguments.
    cut = body.endswith("}")
    return Parts(
        task, argsrepr, kwargsrepr, origin, reply_to, headers, properties, body, cut
    )  # fmt: skip


class Opened(t.NamedTuple):
    """What a stored message says, with its body read.

    :param listed: The values of :data:`LISTED`, the property ``reply_to``, and headers and
        properties that are not as usual, if there are any.
    :param embed: ``None`` if it goes without saying.
    """

    listed: list[t.Any]
    args: t.Any
    kwargs: t.Any
    embed: t.Any


#: Reads one value, and tells where it ends.
_scan: t.Callable[[str, int], tuple[t.Any, int]] = t.cast("t.Any", json.JSONDecoder()).scan_once


def opened(text: str) -> Opened | None:
    """All of a message that was packed; ``None`` if it was kept whole.

    :raises ValueError, TypeError: It cannot be read.
    """
    if not text.startswith("["):
        return None
    found = None if '"__type__"' in text else _read(text)
    if found is not None:
        return found
    # kombu's own decoder, where there is something for it to decode.
    *listed, headers, properties, body, cut = t.cast("Parts", parts(text))
    args, kwargs, embed = kombu_json.loads(f"{body}, null]" if cut else body)
    return Opened([*listed, headers, properties], args, kwargs, embed)


def _read(text: str) -> Opened | None:
    """All of it in one go, if it is written as we write it."""
    embed = None
    try:
        listed, end = _scan(text, 0)
        if text[end : end + 2] != "\n[":
            return None
        args, end = _scan(text, end + 2)
        if text[end : end + 2] != ", ":
            return None
        kwargs, end = _scan(text, end + 2)
        if end < len(text):
            if text[end : end + 2] != ", ":
                return None
            embed, end = _scan(text, end + 2)
            if text[end:] != "]":
                return None
    except StopIteration:
        return None
    return Opened(listed, args, kwargs, embed)


def unpack(text: str, job_id: str, queue: str) -> Message:
    """The message that was packed, but for its delivery tag.

    :raises ValueError, TypeError: It is none.
    """
    found = parts(text)
    if found is None:
        return t.cast("Message", json.loads(text))
    body = found.body + EMBED if found.cut else found.body
    headers, properties = _usual(job_id, queue)
    headers |= {name: getattr(found, name) for name in LISTED} | found.headers
    properties |= {"reply_to": found.reply_to} | found.properties
    return {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": properties,
    }
