"""``broker_transport = "flask_offload.transport:Transport"``, for Celery apps without Flask."""

from ._celery.transport import Transport as Transport
