"""The addresses of one job."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlencode

__all__ = ["Links"]


@dataclass(frozen=True, slots=True)
class Links:
    """
    :param page: Path of its page.
    :param key: The job-bound key of a client that came by it and keeps no cookie.
    """

    page: str
    key: str = ""

    def to(self, path: str = "", **query: str) -> str:
        """An address below the page; it carries the key, if there is one."""
        query = query | ({"key": self.key} if self.key else {})
        return self.page + path + (f"?{urlencode(query)}" if query else "")

    def file(self, name: str) -> str:
        """The address of a file."""
        return self.to(f"/files/{quote(name, safe='')}")
