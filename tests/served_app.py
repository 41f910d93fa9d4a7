"""An app for web servers of tests: ``gunicorn served_app:app``, ``flask --app served_app run``."""

from __future__ import annotations

import os

from flask import Flask

from flask_offload import Offload

app = Flask("served")
app.config.update(
    SECRET_KEY="only for tests",
    OFFLOAD_URL=os.environ["OFFLOAD_URL"],
    OFFLOAD_NAMESPACE=os.environ["OFFLOAD_NAMESPACE"],
    OFFLOAD_PUBLISH_TIMEOUT=os.environ.get("OFFLOAD_PUBLISH_TIMEOUT"),
    OFFLOAD_MAX_STREAMS=os.environ.get("OFFLOAD_MAX_STREAMS"),
    OFFLOAD_MAX_STREAMS_PER_OWNER=1_000,
)
offload = Offload(app)


@app.get("/hello")
def hello() -> str:
    return "hello"
