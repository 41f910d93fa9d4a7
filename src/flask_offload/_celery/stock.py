"""Kombu's own Redis transport, with a bound on how long a publish may take: ``redis+kombu://``."""

from __future__ import annotations

import typing as t

from kombu.transport import redis as kombu_redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .sentinel import SentinelChannel

__all__ = ["Channel", "Transport"]


class Channel(SentinelChannel):
    """A channel that knows the transport option ``publish_timeout``, in seconds."""

    from_transport_options = (*SentinelChannel.from_transport_options, "publish_timeout")
    publish_timeout: float | None = None

    def _connparams(self, asynchronous: bool = False) -> dict[str, t.Any]:
        params: dict[str, t.Any] = super()._connparams(asynchronous)
        if self.publish_timeout:
            # redis-py would try three times more, with pauses of seconds in between.
            params.update(socket_timeout=self.publish_timeout, retry=Retry(NoBackoff(), 0))
            params["socket_connect_timeout"] = self.publish_timeout
        return params


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """Celery's stock transport for Redis, bounded."""

    Channel = Channel
