"""Connections to the primary that sentinels name: each asks them anew when it is opened.

What is connected to an old primary is closed by its end, or by a sentinel that demotes it. But it
may live on for ten seconds before that, and what it is told then is lost. So whoever takes a
connection from a pool sees that it leads to the primary, by what a sentinel said a second ago.
"""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from ..exceptions import ConfigError
from .deadline import Deadline

__all__ = [
    "Primary",
    "PrimaryUnknown",
    "SentinelConnection",
    "SentinelPool",
    "SentinelTLSConnection",
    "parse",
    "server_options",
]

PORT = 26379
#: Seconds for which it is believed that a primary is one, and for the question whether it is.
BELIEF, QUESTION = 1.0, 0.25
#: Seconds until it is asked again after nobody knew.
PATIENCE = 5.0
#: Seconds to find the primary and to connect to it, where the caller sets no limit.
LIMIT = 2.0
FORM = "sentinel://user:password@host1:26379,host2:26379/0?master=name"

Address = tuple[str, int]


class PrimaryUnknown(redis.ConnectionError):
    """The sentinels name no primary.

    :param mend: What changes that.
    :param passes: It may end by itself.
    """

    def __init__(self, why: str, mend: str, *, passes: bool = True) -> None:
        super().__init__(f"{why} {mend}".strip())
        self.why, self.mend, self.passes = why, mend, passes


@dataclass(slots=True)
class Primary:
    """Who is the primary; it stands where the connections of redis-py expect their pool.

    :param sentinels: Host and port of each.
    :param name: Of the primary, as the sentinels know it.
    :param options: For the connections to the sentinels.
    """

    sentinels: list[Address]
    name: str
    options: dict[str, t.Any] = field(default_factory=dict, repr=False)
    is_master: bool = True
    check_connection: bool = False
    address: Address | None = None
    _ask_at: float = 0.0

    def check(self, connection: t.Any) -> None:
        """Close a free connection to a server that is the primary no longer."""
        now = time.monotonic()
        if now > self._ask_at:
            # Before the question: one thread asks, the others go on.
            self._ask_at = now + BELIEF
            try:
                self.find(Deadline.after(QUESTION))
            except PrimaryUnknown:
                # The connection may be as good as any; and who hangs is not asked that often.
                self._ask_at = now + PATIENCE
        if (connection.host, connection.port) != self.address and connection.is_connected:
            connection.disconnect()

    def find(self, deadline: Deadline) -> Address:
        """Ask one sentinel after the other, so that some of the time is left to connect.

        :raises PrimaryUnknown: None of them knows, or answers.
        """
        sentinels, failed, known = list(self.sentinels), [], set[str]()
        down = False
        for number, address in enumerate(sentinels):
            share = max(0.05, deadline.left() / (len(sentinels) - number + 1))
            try:
                primaries = self._ask(address, share)
            except (redis.RedisError, OSError) as error:
                failed.append(f"{_shown(address)}: {error}")
                continue
            state = primaries.get(self.name)
            if state is None:
                known.update(primaries)
            elif state["is_sdown"] or state["is_odown"]:
                down = True
            else:
                # The first to be asked next time; a list of its own, for other threads read it.
                self.sentinels = [address, *(other for other in sentinels if other != address)]
                self._ask_at = time.monotonic() + BELIEF
                self.address = state["ip"], int(state["port"])
                return self.address
        raise self._unknown(failed, known, down)

    def _ask(self, address: Address, timeout: float) -> dict[str, t.Any]:
        client = redis.Redis(
            *address,
            **self.options,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
        )
        with client:
            return t.cast("dict[str, t.Any]", client.sentinel_masters())

    def _unknown(self, failed: list[str], known: set[str], down: bool) -> PrimaryUnknown:
        if down:
            return PrimaryUnknown(
                f"The primary {self.name!r} is down and its sentinels have chosen no other one.",
                "It takes a replica that is up, and the quorum of the sentinels.",
            )
        if known:
            return PrimaryUnknown(
                f"The sentinels of OFFLOAD_URL know no primary {self.name!r}.",
                f"Set master= in it to one of: {', '.join(sorted(known))}.",
                passes=False,
            )
        if len(failed) < len(self.sentinels):
            return PrimaryUnknown(
                "The sentinels of OFFLOAD_URL watch no primary.",
                f"Give each a line: sentinel monitor {self.name} <host> <port> <quorum>",
                passes=False,
            )
        return PrimaryUnknown(
            f"No sentinel of OFFLOAD_URL answers ({'; '.join(failed)}).",
            f"Start them, or set OFFLOAD_URL to where they are: {FORM}",
        )


class SentinelConnection(SentinelManagedConnection):
    """A connection to the primary, opened within one limit, the question to the sentinels
    included."""

    connection_pool: Primary

    def _connect_retry(self) -> None:
        if self._sock:
            return
        limit = self.socket_connect_timeout
        deadline = Deadline.after(limit or LIMIT)
        address = self.connection_pool.find(deadline)
        self.socket_connect_timeout = max(0.05, deadline.left())
        try:
            self.connect_to(address)  # type: ignore[no-untyped-call]
        finally:
            self.socket_connect_timeout = limit


class SentinelTLSConnection(SentinelConnection, SentinelManagedSSLConnection):
    """The same, by TLS."""


class SentinelPool(redis.ConnectionPool):
    """A pool of such connections."""

    def get_connection(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        connection = super().get_connection(*args, **kwargs)
        self.connection_kwargs["connection_pool"].check(connection)
        connection.connect()  # type: ignore[no-untyped-call]
        return connection


def parse(url: str) -> tuple[Primary, str]:
    """The sentinels of a ``sentinel://`` URL, and the rest of it, as the URL of one server.

    :raises ConfigError: It is malformed.
    """
    parts = urlsplit(url)
    if ";" in parts.netloc:
        raise ConfigError(f"Write the sentinels of OFFLOAD_URL with commas, as in {FORM}")
    login, at, hosts = parts.netloc.rpartition("@")
    query = dict(parse_qsl(parts.query))
    name = query.pop("master", "")
    if not name:
        raise ConfigError(f"OFFLOAD_URL does not say which primary: {FORM}")
    tls = _on(query.pop("ssl", "")) or any(key.startswith("ssl_") for key in query)
    options: dict[str, t.Any] = {
        key: query.pop(f"sentinel_{key}")
        for key in ("username", "password")
        if f"sentinel_{key}" in query
    }
    own = _on(query.pop("sentinel_ssl", "yes"))
    scheme = "rediss" if tls else "redis"
    server = f"{scheme}://{login}{at}primary{parts.path}?{urlencode(query)}"
    if tls and own:
        known = server_options(server)
        options |= {"ssl": True} | {k: v for k, v in known.items() if k.startswith("ssl_")}
    return Primary([_address(host) for host in hosts.split(",")], name, options), server


def server_options(url: str) -> dict[str, t.Any]:
    """What redis-py's connections take for the URL of one server."""
    return dict(parse_url(url))  # type: ignore[no-untyped-call]


def _on(flag: str) -> bool:
    return flag.lower() in {"1", "true", "yes"}


def _address(host: str) -> Address:
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port or PORT
    except ValueError:
        parts, port = urlsplit(""), 0
    if not parts.hostname:
        raise ConfigError(
            f"OFFLOAD_URL has a sentinel without a host, or no number for its port: {FORM}"
        )
    return unquote(parts.hostname), port


def _shown(address: Address) -> str:
    return f"{address[0]}:{address[1]}"
