"""The app that ``streams.py`` and ``job_json.py`` put on a web server.

    OFFLOAD_URL=… gunicorn -k gevent bench.web_app:app

Whoever sends ``X-User`` is logged in as that user.
"""

from __future__ import annotations

import os

from flask import Flask, Response, jsonify, request

from flask_offload import Offload

app = Flask(__name__)
app.config.update(
    SECRET_KEY="only for benchmarks",
    OFFLOAD_URL=os.environ["OFFLOAD_URL"],
    OFFLOAD_NAMESPACE="bench",
    OFFLOAD_MAX_STREAMS=5_000,
    OFFLOAD_MAX_STREAMS_PER_OWNER=5_000,
)
offload = Offload(app)


@offload.user_loader
def user_id() -> str | None:
    return request.headers.get("X-User")


@app.get("/constant")
def constant() -> Response:
    """As much JSON as a job is, about."""
    return jsonify({f"field_{number}": "x" * 20 for number in range(30)})
