"""What a worker of ``background_app`` loads: one app of the factory."""

from __future__ import annotations

import os

from background_app import create_app

app = create_app(WORD=os.environ.get("WORD", "none"), OWN_500=bool(os.environ.get("OWN_500", "1")))
celery = app.extensions["offload"].celery
