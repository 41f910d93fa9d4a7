"""A worker refuses a server on which it would lose jobs."""

from __future__ import annotations

import logging
import typing as t

from .._store import examine

if t.TYPE_CHECKING:
    from .app import OffloadCelery

__all__ = ["check_server"]

log = logging.getLogger("flask_offload")


def check_server(app: OffloadCelery) -> bool:
    """Look at the server before a worker uses it; starts the embedded one.

    :return: False if it could not be asked, because it is away: that may pass.
    :raises SystemExit: Something is wrong that waiting does not mend.
    """
    health = examine(app.store, role="worker", allow_eviction=app.settings.allow_eviction)
    faults = [fault for fault in health.faults if not fault.away]
    if faults:
        raise SystemExit("\n".join(f"Error: {fault}" for fault in faults))
    for fault in health.faults:
        log.warning("%s %s", fault.what, fault.why)
    return not health.faults
