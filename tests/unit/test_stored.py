"""A message is given back as it was, however it is kept."""

from __future__ import annotations

import base64
import copy
import json
import typing as t

import pytest

from flask_offload._celery.stored import EMBED, opened, pack, parts, unpack

BODY = '[[1], {"a": "é\\n"}' + EMBED


def message(body: str | bytes = BODY, **more: t.Any) -> dict[str, t.Any]:
    raw = body.encode() if isinstance(body, str) else body
    headers = {
        "lang": "py", "task": "t", "id": "a", "shadow": None, "eta": None, "expires": None,
        "group": None, "group_index": None, "retries": 0, "timelimit": [None, None],
        "root_id": "a", "parent_id": None, "argsrepr": "[1]", "kwargsrepr": "{}",
        "origin": "gen1@host", "ignore_result": False, "replaced_task_nesting": 0,
        "stamped_headers": None, "stamps": {},
    }  # fmt: skip
    properties = {
        "correlation_id": "a", "reply_to": "r", "body_encoding": "base64", "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "celery"}, "delivery_tag": "x",
        "priority": 0,
    }  # fmt: skip
    return {
        "body": base64.b64encode(raw).decode(), "content-encoding": "utf-8",
        "content-type": "application/json", "headers": headers, "properties": properties, **more,
    }  # fmt: skip


def changed(part: str, name: str, value: t.Any) -> dict[str, t.Any]:
    changed = message()
    changed[part][name] = value
    return changed


def without(part: str, name: str) -> dict[str, t.Any]:
    changed = message()
    del changed[part][name]
    return changed


WHOLE = [
    message(**{"content-type": "application/x-yaml"}),
    message(more=1),
    message(b"\xff\x00"),
    message('{"task": "of protocol 1"}'),
    message("[1] "),
    changed("headers", "compression", "application/x-gzip"),
    changed("headers", "argsrepr", None),
    without("headers", "stamps"),
    without("properties", "reply_to"),
    {**message(), "body": "not base64"},
    {**message(), "body": message()["body"] + "\n"},
    {**message(), "body": ["a", "list"]},
]
SHORT = [
    message(),
    message('[[1], {}, {"callbacks": [], "errbacks": null, "chain": null, "chord": null}]'),
    message('[[1],\n {}]'),
    changed("headers", "ignore_result", 0),
    changed("headers", "retries", 2),
    changed("headers", "retries", False),
    changed("headers", "root_id", "another"),
    changed("headers", "root_id", None),
    changed("headers", "timelimit", [1, None]),
    changed("headers", "stamps", {"a": ["b"]}),
    changed("headers", "of mine", "ü"),
    changed("properties", "priority", 3),
    changed("properties", "delivery_info", {"exchange": "e", "routing_key": "k"}),
]  # fmt: skip


@pytest.mark.parametrize("given", SHORT + WHOLE)
def test_is_given_back_as_it_was(given: dict[str, t.Any]) -> None:
    text = pack(copy.deepcopy(given), "celery")
    found = unpack(text, "a", "celery")
    if given["properties"].get("delivery_tag"):
        found["properties"]["delivery_tag"] = "x"
    assert json.dumps(found, sort_keys=True) == json.dumps(given, sort_keys=True)
    assert text.startswith("[" if given in SHORT else "{")


def test_is_short() -> None:
    assert pack(message(), "celery") == '["t","[1]","{}","gen1@host","r"]\n[[1], {"a": "é\\n"}'


def test_deliveries_share_nothing() -> None:
    text = pack(message(), "celery")
    first = unpack(text, "a", "celery")
    first["headers"]["stamps"]["x"] = first["headers"]["timelimit"][0] = 1
    assert unpack(text, "a", "celery")["headers"]["stamps"] == {}
    assert unpack(text, "a", "celery")["headers"]["timelimit"] == [None, None]


BODIES = [
    ("[[1], {}" + EMBED, [1], {}, None),
    ("[[], {}" + EMBED, [], {}, None),
    ('[[1, "],\\n[ é"], {"a": {"b": [null]}}, {"callbacks": [2]}]', [1, "],\n[ é"],
     {"a": {"b": [None]}}, {"callbacks": [2]}),
    ('[[1],{"a":2},{"chain":null}]', [1], {"a": 2}, {"chain": None}),
    ('[[{"__type__": "uuid", "__value__": {"hex": "c" }}, 1.5], {}' + EMBED, None, {}, None),
]  # fmt: skip


@pytest.mark.parametrize(("body", "args", "kwargs", "embed"), BODIES)
def test_is_read_in_one_go_as_step_by_step(
    body: str, args: t.Any, kwargs: t.Any, embed: t.Any
) -> None:
    given = message(body)
    given["headers"]["of mine"] = 1
    text = pack(given, "celery")
    if args is None:
        with pytest.raises(ValueError, match="badly formed"):
            opened(text)
        return
    found, known = opened(text), parts(text)
    assert found is not None
    assert known is not None
    assert found.listed == [*known[:5], {"of mine": 1}, {}]
    assert (found.args, found.kwargs, found.embed) == (args, kwargs, embed)


@pytest.mark.parametrize("text", ['{"task": "t"}', "", "x"])
def test_what_was_kept_whole_is_not_opened(text: str) -> None:
    assert opened(text) is None


@pytest.mark.parametrize("end", ["", "[", "[1]", "[[1], 2, 3, 4]", "[[1], {}, {}", "[[1], {} "])
def test_what_is_no_message_cannot_be_read(end: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        opened('["t","","","",""]\n' + end)
