"""What a consumer holds of the line: leases, in the place of kombu's unacknowledged messages."""

from __future__ import annotations

import typing as t
from contextlib import suppress

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from .._store import StoreUnavailable

if t.TYPE_CHECKING:
    from .engine import Engine

__all__ = ["QoS"]


class QoS(kombu_redis.QoS):  # type: ignore[misc]
    """Leases in the place of kombu's list of unacknowledged messages."""

    def can_consume(self) -> bool:
        # Commands to a worker come on channels without a line, also when all threads are busy.
        lane = self.channel.lane if self.channel.active_queues else None
        if lane is not None and lane.pickup is not None:
            lane = None  # It looks after itself.
        return bool(super().can_consume()) and (lane is None or lane.free(self.in_hand) > 0)

    @property
    def in_hand(self) -> int:
        """How many messages are delivered and not acknowledged."""
        return len(self._delivered or ()) - len(self._dirty or ())

    def append(self, message: t.Any, delivery_tag: str) -> None:
        if self._is_ours(delivery_tag):
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        if self._is_ours(delivery_tag):
            self._settle(delivery_tag, self.channel.engine.ack)
            lane, engine = self.channel.lane, self.channel.engine
            if lane is not None and lane.pickup is not None:
                lane.go()
            elif lane is not None and not lane.in_loop:
                engine.wake()
            elif engine.more:
                # There was more than this worker had room for: no need to wait for a marker.
                self.channel.fetch_soon()
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if not self._is_ours(delivery_tag):
            super().reject(delivery_tag, requeue=requeue)
            return
        engine: Engine = self.channel.engine
        self._settle(delivery_tag, engine.release if requeue else engine.ack)

    def _settle(self, delivery_tag: str, how: t.Callable[[str], object]) -> None:
        try:
            how(delivery_tag)
        finally:
            # Also where the server refuses: the lease will run out, and there is room again here.
            virtual.QoS.ack(self, delivery_tag)

    def restore_unacked_once(self, stderr: t.Any = None) -> None:
        """At the end of a channel. In a worker that goes on, the leases still stand: what it runs
        is still run, and nothing is given back blindly because a connection was lost."""
        engine: Engine | None = self.channel.engine
        self._flush()
        if engine is not None:
            self.channel.give_back()
        delivered: dict[str, t.Any] = self._delivered or {}
        for tag in [tag for tag in delivered if self._is_ours(tag)]:
            del delivered[tag]
            if engine is not None and (engine.stopping or not engine.in_worker):
                with suppress(StoreUnavailable):  # its lease will run out
                    engine.release(tag, forgive=True)
        super().restore_unacked_once(stderr)

    def restore_visible(self, *args: t.Any, **kwargs: t.Any) -> None:
        """Nothing: what a dead worker held is found when jobs are fetched."""

    def _is_ours(self, tag: t.Any) -> bool:
        engine: Engine | None = self.channel.engine
        return engine is not None and isinstance(tag, str) and engine.holds(tag)
