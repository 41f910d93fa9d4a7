"""The pages for the person waiting, and who may see them."""

from __future__ import annotations

from .access import Access
from .errors import register_error_handlers
from .jobpage import job_part, scripts
from .jobs import make_blueprint
from .listing import jobs_list

__all__ = [
    "Access",
    "job_part",
    "jobs_list",
    "make_blueprint",
    "register_error_handlers",
    "scripts",
]
