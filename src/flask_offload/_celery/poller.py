"""How the event loop of a worker hears of jobs."""

from __future__ import annotations

import typing as t

from kombu.transport import redis as kombu_redis

__all__ = ["Poller"]


class Poller(kombu_redis.MultiChannelPoller):  # type: ignore[misc]
    """Reads what the server answers also when nobody has time for a job: the marker that it may
    hold is for another worker then."""

    def _update_brpop_polling(self) -> None:
        """Nothing is paused."""

    def on_readable(self, fileno: int) -> t.Any:
        channel, kind = self._fd_to_chan.get(fileno) or (None, "")
        if channel is not None and kind == "BRPOP" and channel._in_poll and channel.engine:
            return channel.handlers[kind]()
        return super().on_readable(fileno)

    def on_poll_start(self) -> None:
        super().on_poll_start()
        for channel in self._channels:
            # Should a thread that waits for jobs have gone for a reason that is over.
            if channel.active_queues and channel.lane is not None and channel.lane.pickup:
                channel.lane.go()
