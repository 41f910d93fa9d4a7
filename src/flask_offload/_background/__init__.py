"""Background views: a request becomes a job, and its response is kept until it is fetched."""

from __future__ import annotations

from .decorator import BackgroundViews
from .others import locale
from .rebuild import MINTED
from .response import serve
from .view import RETRY_AFTER

__all__ = ["MINTED", "RETRY_AFTER", "BackgroundViews", "locale", "serve"]
