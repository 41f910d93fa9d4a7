"""Background views: a request becomes a job, and its response is kept until it is fetched."""

from __future__ import annotations

from .decorator import BackgroundViews
from .others import locale
from .response import serve

__all__ = ["BackgroundViews", "locale", "serve"]
