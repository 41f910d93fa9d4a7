"""The way of a message from Celery to where it waits, without a connection of kombu's."""

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
    from .message import Message

__all__ = ["LineProducer", "StandIn"]

#: What kombu's producer takes for itself and does not send, and what Celery leaves behind once it
#: is among the headers.
NOT_SENT = frozenset(
    "retry retry_policy declare mandatory immediate timeout confirm_timeout expiration "
    "argsrepr kwargsrepr".split()
)


class StandIn:
    """Stands where Celery takes a :class:`kombu.Producer`, and makes the message that it would."""

    def __init__(self) -> None:
        self.connection = self

    def __enter__(self) -> StandIn:
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
        """Take a message; the parameters are those of :meth:`kombu.Producer.publish`."""
        headers = dict(headers or {})
        content_type, encoding, payload = dumps(body, serializer)
        if compression:
            payload, headers["compression"] = kombu_compression.compress(payload, compression)
        self._take(
            {
                "body": bytes_to_str(base64.b64encode(str_to_bytes(payload))),
                "content-encoding": encoding,
                "content-type": content_type,
                "headers": headers,
                "properties": {
                    **properties,
                    "body_encoding": "base64",
                    "delivery_info": {
                        "exchange": getattr(exchange, "name", exchange) or "",
                        "routing_key": routing_key,
                    },
                    "delivery_mode": 1 if delivery_mode in (1, "transient") else 2,
                    "delivery_tag": "",
                    "priority": properties.get("priority") or 0,
                },
            }
        )

    def _take(self, message: Message) -> None:
        raise NotImplementedError


class LineProducer(StandIn):
    """Hands the message to the engine.

    kombu's own would take a connection from a pool, open it, and ping, each within a time of its
    own: an enqueue has one budget for all, and one round trip to make.

    :param queue: The name of the queue that the message is for.
    :raises StoreUnavailable: From :meth:`publish`: it was not accepted.
    """

    def __init__(self, engine: Engine, queue: str) -> None:
        super().__init__()
        self._engine = engine
        self._queue = queue

    def _take(self, message: Message) -> None:
        properties = message["properties"]
        for name in NOT_SENT & properties.keys():
            del properties[name]
        properties["delivery_info"]["routing_key"] = (
            properties["delivery_info"]["routing_key"] or self._queue
        )
        # What is in the line is on the disk of the server, however it was sent.
        properties |= {"delivery_mode": 2, "delivery_tag": uuid()}
        self._engine.enqueue(self._queue, message)
