"""What each role must be allowed to do on the server."""

from __future__ import annotations

import re
import typing as t
from functools import cache
from importlib.resources import files

if t.TYPE_CHECKING:
    from .keys import Keys

__all__ = ["Role", "acl", "probes"]

Role = t.Literal["web", "worker"]

#: The transitions of a web process; a worker makes all.
WEB = (
    "_shared", "_accept", "announce", "enqueue", "enqueue_one", "enqueue_many", "confirm", "refuse",
    "cancel", "settle", "logs", "allowed",
)  # fmt: skip
#: Not for workers either: for whoever moves an app from stock Celery.
OPERATOR = ("adopt",)
#: Besides what the scripts do. The first line is the store's; the second is of Celery's results,
#: and of its word to a worker that it is to stop a job.
DIRECT: dict[Role, str] = {
    "web": """ping info time select client|setname eval evalsha hget hmget hexists
        get mget zrange zrevrange zrank zcard llen xread xrevrange
        publish subscribe unsubscribe smembers sadd""",
    "worker": """ping info time select client|setname eval evalsha hget hmget hexists
        get mget zrange zrevrange zrank zcard llen xread xrevrange
        publish subscribe unsubscribe psubscribe punsubscribe smembers sadd srem brpop lpush rpush
        multi exec watch unwatch script|load script|exists set del expire zadd zcount zrem
        lrange hset incr""",
}
_CALL = re.compile(r"\bp?call\('([A-Z]+)'")
#: Where the key is not the first argument, or there is none.
_SAMPLES = {
    "ping": [], "info": [], "time": [], "multi": [], "exec": [], "unwatch": [],
    "unsubscribe": [], "punsubscribe": [], "select": ["{db}"],
    "client|setname": ["x"], "script|load": ["x"], "script|exists": ["x"],
    "eval": ["x", "1", "{key}"], "evalsha": ["x", "1", "{key}"],
    "xread": ["COUNT", "1", "STREAMS", "{key}", "0"], "rename": ["{key}", "{key}:raw"],
    "psubscribe": ["{fanout}celery.pidbox"],
    # All that follows is a key, or a channel.
    "del": ["{key}"], "exists": ["{key}"], "mget": ["{key}"], "watch": ["{key}"],
    "subscribe": ["{key}"],
}  # fmt: skip


@cache
def _commands(role: Role) -> tuple[str, ...]:
    found = set(DIRECT[role].split())
    for path in (files("flask_offload._store") / "lua").iterdir():
        name = path.name.removesuffix(".lua")
        if name in WEB if role == "web" else name not in OPERATOR:
            found |= {call.lower() for call in _CALL.findall(path.read_text("utf-8"))}
    return tuple(sorted(found))


def _fanout(keys: Keys, database: int) -> str:
    # kombu's name for a broadcast.
    return f"{keys.prefix}/{database}."


def acl(role: Role, keys: Keys, database: int) -> str:
    """The rules of ``ACL SETUSER`` for a role: one namespace, and nothing but what it needs."""
    channels = [f"&{keys.prefix}*"]
    if role == "worker":
        # To subscribe to a pattern takes that very pattern.
        fanout = _fanout(keys, database)
        channels += [f"&{fanout}celery.pidbox", f"&{fanout}celeryev/worker.*"]
    allowed = [f"+{command}" for command in _commands(role)]
    rules = ["resetkeys", f"~{keys.prefix}*", "resetchannels", *channels, "-@all", *allowed]
    return " ".join(rules)


def probes(role: Role, keys: Keys, database: int) -> list[list[str]]:
    """An example of each command of a role."""
    names = {
        "key": f"{keys.prefix}probe",
        "db": str(database),
        "fanout": _fanout(keys, database),
    }
    examples = []
    for command in _commands(role):
        arguments = _SAMPLES.get(command, ["{key}", "1"])
        examples.append(
            [*command.upper().split("|"), *(_fill(argument, names) for argument in arguments)]
        )
    return examples


def _fill(text: str, names: t.Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: names[found[1]], text)
