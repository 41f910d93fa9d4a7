"""``flask offload adopt``"""

from __future__ import annotations

import click
from flask.cli import with_appcontext

from .._celery.adopt import adopt as move
from ..exceptions import OffloadError, ServerError
from .worker import state

__all__ = ["adopt"]


@click.command("adopt")
@click.option("--queue", "queues", multiple=True, help="An old queue; may be repeated.")
@click.option("--prefix", default="", help="The global_keyprefix of the old Celery app.")
@click.option("--from", "source", default="", metavar="URL", help="The old server.")
@click.option("--force", is_flag=True, help="Also while a stock worker consumes.")
@with_appcontext
def adopt(queues: tuple[str, ...], prefix: str, source: str, force: bool) -> None:
    """Move what waits in the queues of stock Celery into this app's.

    Stop the old workers first. Nothing is lost and nothing runs twice, also when this is
    interrupted and run again.
    """
    try:
        done = move(state().celery, queues, prefix=prefix, source=source, force=force)
    except ServerError as error:
        either = "OFFLOAD_URL or --from" if source else "OFFLOAD_URL"
        raise click.ClickException(str(error).replace("OFFLOAD_URL", either)) from error
    except OffloadError as error:
        raise click.ClickException(str(error)) from error
    click.echo(str(done))
    if done.elsewhere:
        namespace = state().settings.namespace
        click.echo(f"{done.elsewhere} more wait under another prefix: --prefix '{{{namespace}}}:'")
