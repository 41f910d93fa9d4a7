"""The tutorial's app with one view more: the least that Flask can answer."""

from __future__ import annotations

from app import app, celery

__all__ = ["app", "celery"]


@app.get("/constant")
def constant() -> str:
    return "Hello, World!"
