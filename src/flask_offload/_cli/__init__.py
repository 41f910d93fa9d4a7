"""``flask offload …``"""

from __future__ import annotations

from flask.cli import AppGroup

from .adopt import adopt
from .dev import dev
from .doctor import doctor, print_acl
from .jobs import jobs
from .worker import worker

__all__ = ["offload_cli"]

offload_cli = AppGroup("offload", help="Run and look after background jobs.")
offload_cli.add_command(worker)
offload_cli.add_command(dev)
offload_cli.add_command(jobs)
offload_cli.add_command(adopt)
offload_cli.add_command(doctor)
offload_cli.add_command(print_acl)
