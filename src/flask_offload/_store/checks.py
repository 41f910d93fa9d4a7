"""What must be right about the server, and how to mend what is not."""

from __future__ import annotations

import json
import textwrap
import typing as t
from dataclasses import dataclass, field

import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from .address import reason
from .connection import StoreUnavailable
from .rights import Role, probes

if t.TYPE_CHECKING:
    from .store import Store

__all__ = ["Fault", "Health", "examine", "judge"]

#: The oldest that have what the scripts need.
OLDEST = {"Valkey": (7, 2), "Redis": (7, 0)}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something to mend.

    :param mend: The setting or command.
    :param away: The server cannot be reached; that may pass.
    """

    what: str
    why: str
    mend: str
    away: bool = False

    def __str__(self) -> str:
        lines = (self.what, f"Why: {self.why}", f"Mend: {self.mend}")
        wrap = textwrap.TextWrapper(
            78, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        return "\n".join(map(wrap.fill, lines))


@dataclass(frozen=True, slots=True)
class Health:
    """What a server says about itself.

    :param persistence: What is kept on disk, and how.
    :param eviction: Which keys go when it is full.
    """

    server: str = "?"
    persistence: str = "?"
    eviction: str = "?"
    faults: list[Fault] = field(default_factory=list)


def examine(store: Store, *, role: Role = "worker", allow_eviction: bool = False) -> Health:
    """Ask the server, and judge what it says. Raises nothing."""
    try:
        try:
            info = _parse(store.call("INFO"))
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, NoPermissionError):
                raise
            info = {}  # its rights are the next question
        health = judge(info, allow_eviction=allow_eviction)
        if not any(fault.what.endswith("too old.") for fault in health.faults):
            health.faults.extend(_rights(store, role))
        if info.get("aof_enabled") == "0":
            return _with_snapshots(store, health)
    except StoreUnavailable as error:
        return Health(faults=[_refused(error)])
    return health


def judge(info: t.Mapping[str, str], *, allow_eviction: bool = False) -> Health:
    """What the reply of ``INFO`` means; nothing, where the user may not ask."""
    if not info:
        return Health()
    kind = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "0")
    oldest, faults = OLDEST[kind], []
    if tuple(int(part) for part in version.split(".")[:2]) < oldest:
        faults.append(
            Fault(
                f"{kind} {version} is too old.",
                "it cannot run the scripts that change a job in one step.",
                f"upgrade it to {kind} {oldest[0]}.{oldest[1]} or newer, or set OFFLOAD_URL to "
                "such a server.",
            )
        )
    if info.get("role") == "slave":
        primary = f"{info.get('master_host', '?')}:{info.get('master_port', '?')}"
        faults.append(
            Fault(
                "OFFLOAD_URL names a read-only replica.",
                "every change of a job is a write.",
                f"set OFFLOAD_URL to the primary: {primary}.",
            )
        )
    policy, limit = info.get("maxmemory_policy", "noeviction"), int(info.get("maxmemory") or 0)
    if limit and policy != "noeviction" and not allow_eviction:
        faults.append(
            Fault(
                f"The server drops keys when it is full (maxmemory-policy {policy}).",
                "those keys are jobs, waiting or running.",
                "CONFIG SET maxmemory-policy noeviction (and in its configuration file), or set "
                "OFFLOAD_ALLOW_EVICTION=True to take the risk.",
            )
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        faults.append(
            Fault(
                "The server cannot write its append-only file.",
                "it refuses every change until it can.",
                "make room on its disk, and look at its log.",
            )
        )
    bounded = f"{limit:,} bytes" if limit else "no limit"
    return Health(
        f"{kind} {version}",
        "append-only file" if info.get("aof_enabled") == "1" else "no append-only file",
        f"{policy} ({bounded})",
        faults,
    )


def _parse(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {key: value for key, _, value in pairs}


def _with_snapshots(store: Store, health: Health) -> Health:
    try:
        reply = store.call("CONFIG", "GET", "save")
        saved = (reply.get("save") if isinstance(reply, dict) else reply[1]) or ""
        kept = "snapshots only" if saved else "off: jobs end with the server"
    except StoreUnavailable:
        kept = health.persistence
    return Health(health.server, kept, health.eviction, health.faults)


def _rights(store: Store, role: Role) -> list[Fault]:
    database = store.connections.database
    refused = store._script("allowed", "", *map(json.dumps, probes(role, store.keys, database)))
    names = []
    for text in refused:
        command = json.loads(text)
        sub = command[0] in {"CLIENT", "SCRIPT"}
        names.append("|".join(command[: 1 + sub]).lower())
    if not names:
        return []
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return [
        Fault(
            f"The user of OFFLOAD_URL may not run: {shown}.",
            f"a {role} process needs them on the keys and channels {store.keys.prefix}*.",
            f"ACL SETUSER, with the rules that this prints: flask offload acl {role}",
        )
    ]


def _refused(error: StoreUnavailable) -> Fault:
    cause = error.__cause__
    if isinstance(cause, AuthenticationError):
        return Fault(
            "The server refuses the user or password of OFFLOAD_URL.",
            f"it says: {cause}",
            "write them into the URL: redis://user:password@host:6379/0",
        )
    if isinstance(cause, redis.ResponseError):
        if isinstance(cause, NoPermissionError) or "ACL" in str(cause) or "can't run" in str(cause):
            return Fault(
                "The user of OFFLOAD_URL may not run what is needed.",
                f"the server says: {cause}",
                "ACL SETUSER, with the rules that this prints: flask offload acl worker",
            )
        return Fault(
            "The server refuses a command.",
            f"it says: {cause}",
            "see that OFFLOAD_URL names the right server and database.",
        )
    if said := reason(cause):
        what = "The server of OFFLOAD_URL cannot be reached."
        return Fault(what, said.why, said.mend, away=said.passes)
    return Fault(
        "The server of OFFLOAD_URL cannot be reached.",
        str(cause or error),
        "start it, or set OFFLOAD_URL to the right host and port.",
        away=True,
    )
