"""``result_backend = "flask_offload.backend:OffloadBackend+redis://…"``, for Celery apps without
Flask."""

from ._celery.backend import OffloadBackend as OffloadBackend
