"""HTML or JSON: what a client wants."""

from __future__ import annotations

from flask import Response, request

from .view import dumps

__all__ = ["json_response", "wants_json"]


def wants_json() -> bool:
    """Whether this request prefers JSON to a page. Who says nothing gets the page."""
    if request.args.get("format") == "json":
        return True
    accept = request.accept_mimetypes
    return accept["application/json"] > accept["text/html"]


def json_response(value: object, status: int = 200) -> Response:
    """``value`` as a JSON answer."""
    return Response(dumps(value) + "\n", status, mimetype="application/json")
