"""The transport that loses nothing: jobs wait in a line on the server, and are handed out on lease.

kombu's Redis transport does the rest: connections, sentinel, TLS, fanout, remote control. It blocks
on a list with one marker a queue; whoever gets the marker fetches.
"""

from __future__ import annotations

import logging
import typing as t
from collections import deque
from contextlib import suppress
from queue import Empty
from time import monotonic

from celery import signals
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import OutOfMemoryError

from .._store import StoreUnavailable
from . import stock
from .engine import Engine
from .lane import threads as threads
from .lane.base import Lane
from .message import Message, is_task
from .plain import engine_of
from .poller import Poller
from .qos import QoS

__all__ = ["Channel", "Transport"]

log = logging.getLogger("flask_offload")

WAKE = "wake:"
#: Seconds for which a connection to the server waits for an answer that is due at once.
ANSWER = 2.0
#: Most messages at once for a consumer that sets no limit.
BATCH = 10


class Channel(stock.Channel):
    """A channel whose queues of tasks are lines of jobs."""

    QoS = QoS
    from_transport_options = (*stock.Channel.from_transport_options, "engine")
    engine: Engine | None = None
    _due: t.Any = None
    _soon = False

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        #: What the lane has fetched for Celery's own way.
        self._fetched: deque[tuple[Message, str]] = deque()
        super().__init__(*args, **kwargs)

    @property
    def lane(self) -> Lane | None:
        """Of the worker that consumes here, if it has one."""
        return None if self.engine is None else self.engine.lane

    def _has_line(self, queue: str) -> bool:
        """Whether a queue is for jobs, not for replies or broadcasts."""
        return (
            self.engine is not None
            and queue not in self._fanout_queues
            and not queue.endswith(".pidbox")
        )

    def _put(self, queue: str, message: Message, **kwargs: t.Any) -> None:
        if self.engine is not None and is_task(message):
            self.engine.enqueue(queue, message)
        else:
            super()._put(queue, message, **kwargs)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)
        except OutOfMemoryError:
            # A worker that starts on a full server must be able to: it is what drains it. The
            # tables that kombu would write are those of the workers before it.
            log.warning("The server is full; the binding of %s is taken as it was.", queue)

    def _get(self, queue: str) -> Message:
        if not self._has_line(queue):
            return t.cast("Message", super()._get(queue))
        for message, _ in self.engine.fetch([queue], 1) if self.engine else ():
            return message
        return t.cast("Message", super()._get(queue))

    def _size(self, queue: str) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        size = int(super()._size(queue))
        return size + self.engine.store.size(queue) if self.engine else size

    def _has_queue(self, queue: str, **kwargs: t.Any) -> bool:
        # A passive declaration asks, for the length of a queue. Lists that are empty do not exist,
        # and kombu's own question forgets the prefix of the keys.
        return self._size(queue) > 0

    def _purge(self, queue: str) -> int:
        purged = int(super()._purge(queue))
        return purged + self.engine.store.purge(queue) if self.engine else purged

    # -- consuming, by the two steps that kombu's poller calls

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not any(self._has_line(queue) for queue in queues):
            super()._brpop_start(timeout)
            return
        keys: list[str] = []
        for queue in queues:
            if self._has_line(queue) and not self._lane_waits:
                keys.append(f"{WAKE}{queue}")
            # What is no task waits in a list, as with kombu: a reply of the RPC backend.
            keys.extend(self._q_for_pri(queue, priority) for priority in self.priority_steps)
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        command = ["BRPOP", *keys, timeout or self.brpop_timeout]
        if self.global_keyprefix:
            command = self.client._prefix_args(command)
        self.client.connection.send_command(*command)

    def _brpop_read(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, **options: t.Any
    ) -> bool:
        try:
            reply = self.client.parse_response(self.client.connection, "BRPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        key = bytes_to_str(reply[0]) if reply else ""
        if reply and not key.startswith(WAKE):
            queue = key.rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            self.connection._deliver(loads(bytes_to_str(reply[1])), queue)
            return True
        # A marker, or none for a second: one that got lost with its worker costs no more.
        if not self.qos.can_consume():
            # Its threads have got work since it asked. The marker is for another worker.
            if reply and self.engine is not None:
                self.engine.store.wake(key.removeprefix(WAKE))
            return True
        if self._lane_waits or not self._take_turn():
            raise Empty
        return True

    # -- consuming, by a thread of the lane

    @property
    def _lane_waits(self) -> bool:
        return self.lane is not None and self.lane.pickup is not None

    def basic_consume(self, queue: str, *args: t.Any, **kwargs: t.Any) -> t.Any:
        answer = super().basic_consume(queue, *args, **kwargs)
        self.tell_lane()
        return answer

    def _basic_cancel(self, consumer_tag: str) -> t.Any:
        answer = super()._basic_cancel(consumer_tag)
        self.tell_lane()
        return answer

    def tell_lane(self) -> None:
        """Say what is consumed here."""
        lane = self.lane
        if lane is not None and lane.pickup is not None:
            lane.pickup.watch(self, self.next_queues())
            lane.go()

    def next_queues(self) -> list[str]:
        queues = self._queue_cycle.consume(len(self.active_queues))
        return [queue for queue in queues if self._has_line(queue)]

    def room(self) -> int:
        room = self.qos.can_consume_max_estimate()
        return BATCH if room is None else int(room)

    def in_pool(self) -> int:
        return t.cast("QoS", self.qos).in_hand + len(self._fetched)

    def took_from(self, queue: str) -> None:
        self._queue_cycle.rotate(queue)

    def deliver(self, messages: list[tuple[Message, str]]) -> None:
        self._fetched.extend(messages)
        hub = self._hub
        if hub is None:
            self.give_back()
        else:
            hub.call_soon(self._deliver_fetched)

    def _deliver_fetched(self) -> None:
        while self._fetched:
            if self.closed:
                self.give_back()
                return
            # Counted as fetched until it counts as delivered: a moment too often, never too little.
            self._hand_over(*self._fetched[0])
            self._fetched.popleft()

    def give_back(self) -> None:
        """Give back what the event loop did not get to. For any thread."""
        with suppress(IndexError):
            while self.engine is not None:
                message, _ = self._fetched.popleft()
                self.engine.abandon([message["properties"]["delivery_tag"]])

    # -- consuming, by the event loop

    def _take_turn(self) -> bool:
        """Fetch for who has nothing to do; whether there was something."""
        queues = self.next_queues()
        if self.engine is None or not queues:
            return False
        room = max(1, self.room())
        lane = self.engine.lane
        if lane is None:
            messages = self.engine.fetch(queues, room)
        else:
            messages = lane.fetch(queues, room, lane.free(t.cast("QoS", self.qos).in_hand))
        if messages:
            self._queue_cycle.rotate(messages[0][1])
        for message, queue in messages[:room]:
            self._hand_over(message, queue)
        for message, _ in messages[room:]:
            # The server took their task for quick. Its rate was limited a moment ago, and they
            # would wait here for as long as that takes.
            with suppress(StoreUnavailable):  # their leases will run out
                self.engine.release(
                    message["properties"]["delivery_tag"], forgive=True, in_pool=True
                )
        self._look_when_due(self.engine.due_in)
        return (lane is not None and lane.go()) or bool(messages)

    def _look_when_due(self, due_in: float | None) -> None:
        # What is due later than that is seen at the next tick, and set then.
        hub = self._hub
        if hub is None or due_in is None or due_in > 1.5:
            return
        if self._due is not None:
            self._due.cancel()
        self._due = hub.call_later(due_in, self._fetch_due)

    def fetch_soon(self) -> None:
        """Fetch at the next turn of the event loop, in whose thread this is."""
        hub = self._hub
        if hub is not None and not self._soon:
            self._soon = True
            # Before the loop looks what the pool has to write, so that it is written at once.
            hub.call_soon(self._fetch_due)

    @property
    def _hub(self) -> t.Any:
        # The job of a channel that is closed may be acknowledged on it all the same.
        return None if self.closed or self.connection is None else self.connection.hub

    def _fetch_due(self) -> None:
        self._due, self._soon = None, False
        if not self.closed and self.active_queues and self.qos.can_consume():
            self._take_turn()

    def _hand_over(self, message: Message, queue: str) -> None:
        tag = message["properties"]["delivery_tag"]
        try:
            self.connection._deliver(message, queue)
        except self.connection_errors:
            raise
        except Exception as error:
            # One message that nobody can make sense of must not end a worker, and with it all
            # others, in turn.
            if self.engine is None:
                raise
            self.engine.bury(tag, f"The message cannot be read: {error!r}")
            virtual.QoS.ack(self.qos, tag)


def _nothing() -> None:
    """To wake an event loop is enough."""


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """``redis://``, ``valkey://`` and ``unix://`` of ``OFFLOAD_URL``."""

    Channel = Channel

    def __init__(self, client: t.Any, **kwargs: t.Any) -> None:
        options = client.transport_options
        if options.get("engine") is None:
            # A Celery app that knows us by its settings only.
            engine = options["engine"] = engine_of(client)
            options.setdefault("global_keyprefix", engine.store.keys.prefix)
        # A connection that is accepted and never answered must not hold the event loop for ever.
        options.setdefault("publish_timeout", ANSWER)
        super().__init__(client, **kwargs)
        self.cycle = Poller()
        #: The event loop of a worker.
        self.hub: t.Any = None

    def register_with_event_loop(self, connection: t.Any, loop: t.Any) -> None:
        super().register_with_event_loop(connection, loop)
        self.hub = loop
        engine: Engine | None = self.client.transport_options.get("engine")
        if engine is not None:
            engine.wake = lambda: loop.call_soon(_nothing)


@signals.worker_before_create_process.connect(weak=False)
def _load_prefork(sender: t.Any, **_: t.Any) -> None:
    """Load what workers with other pools need not have in memory."""
    from .lane import prefork

    prefork.make_slots(sender._processes)
