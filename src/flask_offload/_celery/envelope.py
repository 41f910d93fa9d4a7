"""Whole messages of other brokers, as they wait in the server of the records.

They have the form that kombu's virtual transports give a message, which is the form of our line,
too: a job that waits is not bound to the broker that it waits for.
"""

from __future__ import annotations

import base64
import typing as t

from kombu.utils import json as kombu_json
from kombu.utils.encoding import bytes_to_str, str_to_bytes

from .message import ETA, FENCE, Message
from .producer import StandIn
from .stored import pack, unpack

if t.TYPE_CHECKING:
    from .._store import Delivery

__all__ = ["Capture", "decode", "due", "encode", "received"]

#: The properties that are the sender's; the others belong to a delivery.
SENT = frozenset("correlation_id reply_to message_id user_id app_id type".split())
#: Those that every message has.
OF_MESSAGE = ("body_encoding", "delivery_info", "delivery_mode", "delivery_tag", "priority")
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


class Capture(StandIn):
    """Hands on what would be published.

    :param accept: Called with the message. The first is the task's; with ``task_send_sent_event``
        an event follows, which is not sent: there is no broker here that takes it.
    """

    def __init__(self, accept: t.Callable[[Message], None]) -> None:
        super().__init__()
        self._accept: t.Callable[[Message], None] | None = accept

    def _take(self, message: Message) -> None:
        accept, self._accept = self._accept, None
        if accept is not None:
            properties = message["properties"]
            kept = {name: properties[name] for name in OF_MESSAGE}
            accept({**message, "properties": {**_sent(properties), **kept}})


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
