"""``celery -A worker_app.celery worker``."""

from __future__ import annotations

import os

from tasks_app import create_app

app = create_app(os.environ)
celery = app.extensions["offload"].celery
