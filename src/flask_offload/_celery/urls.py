"""One URL of the user's, as redis-py, Celery's backend and kombu each want it."""

from __future__ import annotations

import typing as t
from urllib.parse import parse_qsl, urlsplit

from kombu.transport import TRANSPORT_ALIASES

from .._store import CLIENT_NAME, Primary, connection_options

__all__ = ["backend_url", "broker_options", "is_redis"]

#: kombu splits ``<alias>+socket:///path`` by itself, and takes no class in front of the plus.
ENGINE, STOCK = "offload", "offload-stock"
TRANSPORT_ALIASES[ENGINE] = "flask_offload._celery.transport:Transport"
TRANSPORT_ALIASES[STOCK] = "flask_offload._celery.stock:Transport"
BACKEND = "flask_offload._celery.backend:OffloadBackend"
_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}


def is_redis(url: str) -> bool:
    """Whether a Redis or Valkey server is meant, not RabbitMQ."""
    return not urlsplit(url).scheme.endswith(("amqp", "amqps"))


def _plain(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{_SCHEMES.get(scheme, scheme).removesuffix('+kombu')}://{rest}"


def _for_kombu(url: str, alias: str) -> str:
    parts = urlsplit(url)
    database = dict(parse_qsl(parts.query)).get("db", "")
    if parts.scheme == "unix":
        # kombu writes unix:///path?db=1 as socket:///path?virtual_host=1.
        return f"{alias}+socket://{parts.netloc}{parts.path}?virtual_host={database or 0}"
    login, at, hosts = parts.netloc.rpartition("@")
    # Options are settings of their own; of several sentinels kombu reads one.
    return f"{alias}://{login}{at}{hosts.partition(',')[0]}/{database or parts.path.strip('/')}"


def backend_url(url: str) -> str:
    """The value of ``result_backend``."""
    return f"{BACKEND}+{_plain(url)}"


def broker_options(url: str, namespace: str, *, line: bool) -> dict[str, t.Any]:
    """The ``broker_*`` settings of Celery for a broker URL.

    :param line: Whether it is the server of the records, so that the jobs wait in line there.
    """
    if is_redis(url):
        options: dict[str, t.Any] = {
            "broker_url": _for_kombu(url, ENGINE if line else STOCK),
            # Apps that share a server must not take each other's messages.
            "broker_transport_options": {
                "global_keyprefix": f"{{{namespace}}}:",
                # A worker on a connection that is cut without a word notices within this and a
                # second more.
                "health_check_interval": 5,
            },
        }
        if line:
            # Tells our workers from those of stock Celery, in the list of clients.
            options["broker_transport_options"]["client_name"] = CLIENT_NAME
        known = connection_options(_plain(url))
        if isinstance(primary := known.get("connection_pool"), Primary):
            options["broker_transport_options"] |= {
                "master_name": primary.name,
                "sentinels": primary.sentinels,
                "sentinel_kwargs": primary.options,
            }
        if hasattr(known["connection_class"], "_wrap_socket_with_ssl"):
            tls = {key: value for key, value in known.items() if key.startswith("ssl_")}
            options["broker_use_ssl"] = {"ssl_cert_reqs": "required", **tls}
        return options
    return {
        "broker_url": url,
        "broker_transport_options": {"confirm_publish": True},
        # Not "celery": apps that share a virtual host must not take each other's messages, and a
        # classic queue of that name may exist, which cannot be declared again as a quorum queue.
        "task_default_queue": namespace,
        "task_default_queue_type": "quorum",
        # Celery's delayed delivery for quorum queues routes by topic.
        "task_default_exchange_type": "topic",
    }
