"""``flask offload …``"""

from __future__ import annotations

import click
from flask.cli import AppGroup
from werkzeug.utils import import_string

__all__ = ["offload_cli"]

COMMANDS = {
    "acl": "doctor:print_acl",
    "adopt": "adopt:adopt",
    "dev": "dev:dev",
    "doctor": "doctor:doctor",
    "jobs": "jobs:jobs",
    "worker": "worker:worker",
}


class _Commands(AppGroup):
    """Loads each command when it is wanted: a worker would have the others in memory."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = COMMANDS.get(cmd_name)
        return import_string(f"{__name__}.{found}") if found else None


offload_cli = _Commands("offload", help="Run and look after background jobs.")
