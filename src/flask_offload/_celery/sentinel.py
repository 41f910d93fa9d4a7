"""The connections of kombu and Celery go where those of the store do."""

from __future__ import annotations

import typing as t
from urllib.parse import urlsplit

from celery.backends.redis import RedisBackend
from kombu.transport import redis as kombu_redis
from kombu.utils.url import maybe_sanitize_url

from .._store import (
    Primary,
    SentinelConnection,
    SentinelTLSConnection,
    connection_options,
    with_ours,
)
from .._store.sentinel import PORT, SentinelPool

__all__ = ["SentinelChannel", "StoreConnections"]


def sentinels_of(connection: t.Any) -> list[tuple[str, int]]:
    """The sentinels of a kombu connection whose transport options have a ``master_name``.

    :param connection: Of ``sentinel://host1:26379;sentinel://host2:26379``, as kombu writes it,
        if the options have none.
    """
    options = connection.transport_options
    if not options.get("master_name"):
        return []
    if given := options.get("sentinels"):
        return [(host, port) for host, port in given]
    urls = [urlsplit(url) for url in connection.alt if url.startswith("sentinel:")]
    found = [(url.hostname or "localhost", url.port or PORT) for url in urls]
    return found or [(connection.hostname or "localhost", connection.port or PORT)]


class SentinelChannel(kombu_redis.Channel):  # type: ignore[misc]
    """A channel to the primary that sentinels name; to the server of its URL, if none are given.

    The transport options have kombu's names: ``master_name`` and ``sentinel_kwargs``; beside them,
    ``sentinels`` are host and port of each.
    """

    from_transport_options = (
        *kombu_redis.Channel.from_transport_options,
        "master_name",
        "sentinel_kwargs",
    )
    master_name: str = ""
    sentinel_kwargs: dict[str, t.Any] | None = None

    def _connparams(self, asynchronous: bool = False) -> dict[str, t.Any]:
        sentinels = sentinels_of(self.connection.client)
        if sentinels:
            self.connection_class = SentinelConnection
            self.connection_class_ssl = SentinelTLSConnection
        params: dict[str, t.Any] = with_ours(super()._connparams(asynchronous))
        if not sentinels:
            return params
        # The first sentinel, which stands in the URL for people to read.
        del params["host"], params["port"]
        params["connection_pool"] = Primary(
            sentinels, self.master_name, dict(self.sentinel_kwargs or {})
        )
        return params


class StoreConnections(RedisBackend):  # type: ignore[misc]
    """A backend that reads its URL as the store does: TLS, unix sockets and sentinels alike."""

    store: t.Any

    def _params_from_url(self, url: str, defaults: dict[str, t.Any]) -> dict[str, t.Any]:
        options = connection_options(self.store.connections.url)
        params = {**defaults, "port": 6379, "db": 0, **options}
        kind = params["connection_class"]
        if kind is self.redis.Connection:
            # Celery's settings may ask for TLS.
            params["connection_class"] = defaults.get("connection_class", kind)
        if issubclass(params["connection_class"], self.redis.SSLConnection):
            params.setdefault("ssl_cert_reqs", "required")
        if "path" in options or "connection_pool" in options:
            params.pop("host", None)
            params.pop("port", None)
        if "path" in options:
            params.pop("socket_connect_timeout", None)
            params.pop("socket_keepalive", None)
        return params

    def _get_pool(self, **params: t.Any) -> t.Any:
        if isinstance(params.get("connection_pool"), Primary):
            return SentinelPool(**params)
        return super()._get_pool(**params)

    def as_uri(self, include_password: bool = False) -> str:
        url: str = self.url
        if include_password or "," not in url:
            return t.cast("str", super().as_uri(include_password))
        # kombu knows no URL with several hosts.
        scheme, _, rest = url.partition("://")
        login, at, hosts = rest.partition("/")[0].rpartition("@")
        first = maybe_sanitize_url(f"{scheme}://{login}{at}{hosts.partition(',')[0]}")
        return f"{first.rstrip('/')},{hosts.partition(',')[2]}"
