"""Whole messages of other brokers, as they wait in the server of the records.

They have the form that kombu's virtual transports give a message, which is the form of our line,
too: a job that waits is not bound to the broker that it waits for.
"""

from __future__ import annotations

import base64
import contextlib
import typing as t

from kombu import compression as kombu_compression
from kombu.serialization import dumps
from kombu.utils import json as kombu_json
from kombu.utils.encoding import bytes_to_str, str_to_bytes

from .message import ETA, FENCE, Message
from .stored import pack, unpack

if t.TYPE_CHECKING:
    from .._store import Delivery

__all__ = ["Capture", "decode", "due", "encode", "received"]

#: The properties that are the sender's; the others belong to a delivery.
SENT = frozenset("correlation_id reply_to message_id user_id app_id type".split())
#: Headers that RabbitMQ adds to what it delivers again.
OF_BROKER = ("x-delivery-count", "x-acquired-count", "x-death", "x-first-death-", "x-last-death-")


def encode(message: Message, queue: str = "") -> str:
    """A message as text.

    :param queue: The one on the record.
    """
    try:
        return pack(message, queue)
    except TypeError:
        # AMQP has headers that JSON has not, such as times.
        return str(kombu_json.dumps(message))


def decode(delivery: Delivery) -> Message:
    """The message of :func:`encode`.

    :raises ValueError, TypeError, RecursionError: It is none.
    """
    if delivery.envelope.startswith("{"):
        return t.cast("Message", kombu_json.loads(delivery.envelope))
    return unpack(delivery.envelope, delivery.job_id, delivery.queue)


class Capture:
    """Stands where Celery takes a :class:`kombu.Producer`, and hands on what would be published.

    :param accept: Called with the message. The first is the task's; with ``task_send_sent_event``
        an event follows, which is not sent: there is no broker here that takes it.
    """

    def __init__(self, accept: t.Callable[[Message], None]) -> None:
        self._accept: t.Callable[[Message], None] | None = accept
        self.connection = self

    def __enter__(self) -> Capture:
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
        priority: int | None = None,
        **properties: t.Any,
    ) -> None:
        """Take a message; the parameters are those of :meth:`kombu.Producer.publish`."""
        accept, self._accept = self._accept, None
        if accept is None:
            return
        headers = dict(headers or {})
        content_type, encoding, payload = dumps(body, serializer)
        if compression:
            payload, headers["compression"] = kombu_compression.compress(payload, compression)
        accept(
            {
                "body": bytes_to_str(base64.b64encode(str_to_bytes(payload))),
                "content-encoding": encoding,
                "content-type": content_type,
                "headers": headers,
                "properties": {
                    **_sent(properties),
                    "body_encoding": "base64",
                    "delivery_info": {
                        "exchange": getattr(exchange, "name", exchange) or "",
                        "routing_key": routing_key or "",
                    },
                    "delivery_mode": 1 if delivery_mode in (1, "transient") else 2,
                    "delivery_tag": "",
                    "priority": priority or 0,
                },
            }
        )


def received(message: t.Any, queue: str = "") -> Message:
    """A message that a broker delivered, so that it can be published again.

    :param queue: The name of the queue from which it came: it goes back to that one alone,
        whatever else its exchange would give it to.
    """
    info = message.delivery_info or {}
    properties = message.properties or {}
    headers = {
        key: value
        for key, value in (message.headers or {}).items()
        # kombu has decompressed the body. The fence was of that delivery.
        if key not in ("compression", FENCE) and not key.startswith(OF_BROKER)
    }
    return {
        "body": bytes_to_str(base64.b64encode(str_to_bytes(message.body))),
        "content-encoding": message.content_encoding,
        "content-type": message.content_type,
        "headers": headers,
        "properties": {
            **_sent(properties),
            "body_encoding": "base64",
            "delivery_info": {
                "exchange": "" if queue else info.get("exchange") or "",
                "routing_key": queue or info.get("routing_key") or "",
            },
            "delivery_mode": properties.get("delivery_mode") or 2,
            "delivery_tag": "",
            "priority": properties.get("priority") or 0,
        },
    }


def due(delivery: Delivery) -> dict[str, t.Any]:
    """A message that is due, as arguments for :meth:`kombu.Producer.publish`.

    :raises ValueError, TypeError, KeyError, AttributeError, RecursionError: It is no message.
    """
    message = decode(delivery)
    headers, properties = dict(message["headers"]), message["properties"]
    # It is due by the server's clock. With its time, a worker would wait for its own.
    if headers.get("eta"):
        headers[ETA] = headers["eta"]
    headers["eta"] = None
    headers[FENCE] = delivery.fence
    info = properties["delivery_info"]
    return {
        **_sent(properties),
        "body": base64.b64decode(message["body"]),
        "content_type": message["content-type"],
        "content_encoding": message["content-encoding"],
        "headers": headers,
        "exchange": str(info["exchange"]),
        "routing_key": str(info["routing_key"]),
        "delivery_mode": properties["delivery_mode"],
        "priority": properties["priority"],
        # What no queue takes comes back as an error, and is kept.
        "mandatory": True,
    }


def _sent(properties: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    return {key: value for key, value in properties.items() if key in SENT and value is not None}
