"""How every call to the server is made."""

from __future__ import annotations

import json
import time
import typing as t

import redis
from redis.exceptions import NoPermissionError, OutOfMemoryError, ReadOnlyError

from ..exceptions import ServerError
from . import scripts
from .connection import Connections, Deadline, Link, StoreUnavailable
from .keys import Keys

if t.TYPE_CHECKING:
    from .._config import Settings

__all__ = ["Base"]

#: Seconds for which a worker waits for a server that is away before it gives a job back.
PATIENCE = 60.0


class Base:
    """The server of one namespace.

    :param prepare: Called before each use, with the seconds that it may take; starts the embedded
        server unless it runs.
    :param recover: Called after the server was away, likewise; restarts the embedded server.
    :raises StoreUnavailable: Every method does, when the server is away or refuses.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        *,
        prepare: t.Callable[[float], None] | None = None,
        recover: t.Callable[[float], None] | None = None,
    ) -> None:
        self.keys = Keys(settings.namespace)
        self.connections = Connections(url)
        #: Seconds that one call may take where the caller gives no deadline: what a request may
        #: wait for an enqueue is what it may wait for a list.
        self.timeout = settings.publish_timeout
        self._retention = json.dumps(
            {state: settings.retain(state) for state in (*settings.retention, "dead")}
        )
        self._prepare = prepare
        self._recover = recover
        self._max_log_lines = settings.max_log_lines
        self._lease = settings.lease
        #: The server's time, and ours by the monotonic clock when it was asked for.
        self._clock: tuple[float, float] | None = None

    # -- how a call is made

    def _call(self, use: t.Callable[[Link], t.Any], deadline: Deadline | None = None) -> t.Any:
        deadline = deadline or Deadline.after(self.timeout)
        _embedded(self._prepare, deadline)
        try:
            with self.connections.take(deadline) as link:
                return use(link)
        except redis.ResponseError as error:
            text, for_good = _refusal(error)
            raise StoreUnavailable(text, sent=False, for_good=for_good) from error
        except StoreUnavailable as error:
            if self._recover is None or error.sent:
                raise
            # The embedded server is ours to bring back; nothing was sent, so this is safe.
            _embedded(self._recover, deadline)
            with self.connections.take(deadline) as link:
                return use(link)

    def _common(self, job_id: str) -> tuple[str, str, str]:
        """What every script takes first."""
        return self.keys.prefix, job_id, self._retention

    def _script(
        self,
        name: str,
        job_id: str,
        *args: t.Any,
        keys: t.Sequence[str] = (),
        deadline: Deadline | None = None,
    ) -> t.Any:
        keys = [self.keys.job(job_id), *keys]
        args = (*self._common(job_id), *args)
        return self._call(lambda link: scripts.run(link, name, keys, args), deadline)

    def call(self, *command: t.Any, deadline: Deadline | None = None) -> t.Any:
        """Send one command."""
        return self._call(lambda link: link.call(*command), deadline)

    def settle(self, limit: int = 100) -> None:
        """End the enqueues that nobody confirmed in time."""
        self._script("settle", "", limit)

    def patiently(self, call: t.Callable[[], t.Any], limit: float = PATIENCE) -> t.Any:
        """Repeat ``call`` while the server is away, for at most ``limit`` seconds. For workers."""
        deadline = Deadline.after(limit)
        pause = 0.05
        while True:
            try:
                return call()
            except StoreUnavailable:
                if deadline.left() < pause:
                    raise
                time.sleep(pause)
                pause = min(2.0, pause * 2)


def _embedded(step: t.Callable[[float], None] | None, deadline: Deadline) -> None:
    """Start the embedded server, or bring it back, where there is one."""
    if step is None:
        return
    try:
        step(deadline.left())
    except StoreUnavailable:
        raise
    except ServerError as error:
        raise StoreUnavailable(str(error), sent=False) from error


def _refusal(error: redis.ResponseError) -> tuple[str, bool]:
    """Why the server refused, and whether it will again."""
    text = str(error)
    if isinstance(error, OutOfMemoryError) or "OOM" in text:
        return (
            "The server of OFFLOAD_URL is full. Raise its maxmemory, or let workers drain it.",
            False,
        )
    if isinstance(error, ReadOnlyError):
        return "OFFLOAD_URL names a read-only replica. Set it to the primary.", False
    # Of a script, which a server says in words of its own.
    inside = "ACL failure" in text or "user executing the script can't run" in text
    if isinstance(error, NoPermissionError) or inside:
        return (
            f"The user of OFFLOAD_URL may not do this: {text.partition(' script: on')[0]}. "
            "Grant what this prints: flask offload acl web (or worker).",
            False,
        )
    # An error of a script that nothing else explains is about the record that it found.
    for_good = "WRONGTYPE" in text or "user_script" in text
    return f"The server of OFFLOAD_URL refused a command: {text}", for_good
