"""The way of a message from Celery into the line, without a connection of kombu's."""

from __future__ import annotations

import base64
import contextlib
import typing as t

from kombu import compression as kombu_compression
from kombu.serialization import dumps
from kombu.utils.encoding import bytes_to_str, str_to_bytes
from kombu.utils.uuid import uuid

if t.TYPE_CHECKING:
    from .engine import Engine

__all__ = ["LineProducer"]

#: What kombu's producer takes for itself and does not send, and what Celery leaves behind once it
#: is among the headers.
NOT_SENT = frozenset(
    "retry retry_policy declare mandatory immediate timeout confirm_timeout expiration "
    "argsrepr kwargsrepr".split()
)


class LineProducer:
    """Stands where Celery takes a :class:`kombu.Producer`, and hands the message to the engine.

    kombu's own would take a connection from a pool, open it, and ping, each within a time of its
    own: an enqueue has one budget for all, and one round trip to make.

    :param queue: The name of the queue that the message is for.
    """

    def __init__(self, engine: Engine, queue: str) -> None:
        self._engine = engine
        self._queue = queue
        self.connection = self

    def __enter__(self) -> LineProducer:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def _reraise_as_library_errors(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def publish(
        self,
        body: t.Any,
        *,
        serializer: str | None = None,
        compression: str | None = None,
        headers: dict[str, t.Any] | None = None,
        exchange: t.Any = "",
        routing_key: str = "",
        delivery_mode: t.Any = None,
        **properties: t.Any,
    ) -> None:
        """Put a message in line; the parameters are those of :meth:`kombu.Producer.publish`.

        :raises StoreUnavailable: It was not accepted.
        """
        headers = dict(headers or {})
        content_type, encoding, payload = dumps(body, serializer)
        if compression:
            payload, headers["compression"] = kombu_compression.compress(payload, compression)
        sent = {key: value for key, value in properties.items() if key not in NOT_SENT}
        message = {
            "body": bytes_to_str(base64.b64encode(str_to_bytes(payload))),
            "content-encoding": encoding,
            "content-type": content_type,
            "headers": headers,
            "properties": {
                **sent,
                "body_encoding": "base64",
                "delivery_info": {
                    "exchange": getattr(exchange, "name", exchange) or "",
                    "routing_key": routing_key or self._queue,
                },
                "delivery_mode": 2,
                "delivery_tag": uuid(),
                "priority": sent.get("priority") or 0,
            },
        }
        self._engine.enqueue(self._queue, message)
