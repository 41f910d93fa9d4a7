"""The browsers of ``streams.py``: many in one process, each with a connection of its own.

    python -m bench.readers <port> <stream|poll> <JSON: readers per job id>

Says when all have read once. After a line on its standard input, JSON of when each job said
something, it tells of each event when the server had it, and how late each of its readers showed
it, or what came after it, all in seconds.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sys
import time
from functools import partial

#: What a job says: when it said it.
STAMP = re.compile(rb'"message":"(\d+\.\d+)"')
#: When the server noted that, in milliseconds.
NOTED = re.compile(rb"^id: (\d+)-", re.MULTILINE)
EVERY = 2.0


class Shown:
    """What one page showed, and when."""

    def __init__(self, job_id: str, counts: list[int]) -> None:
        self.job_id = job_id
        self.counts = counts
        self.ready = False
        self._arrivals: list[tuple[float, float, float]] = []

    def note(self, event: bytes, now: float) -> None:
        if not self.ready:
            self.ready = True
            self.counts[0] += 1
        stamp, noted = STAMP.search(event), NOTED.search(event)
        if stamp:
            at = int(noted[1]) / 1000 if noted else 0.0
            self._arrivals.append((float(stamp[1]), at, now))

    def tell(self, said: list[float], seen: dict[float, tuple[float, list[float]]]) -> None:
        """How late it was with each of the events that were ``said``."""
        rest = iter(self._arrivals)
        stamp, at, now = next(rest, (0.0, 0.0, 0.0))
        for event in said:
            while stamp < event:
                stamp, at, now = next(rest, (2e9 * 2, 0.0, 0.0))
            if now:
                known = seen.setdefault(event, (at if stamp == event else 0.0, []))
                known[1].append(now - event)


class Reader(asyncio.Protocol):
    """A page with a stream."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        path = f"/jobs/{self._shown.job_id}/events"
        transport.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\nX-User: one\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self._shown.counts[1] += len(data)
        self._rest += data
        while b"\n\n" in self._rest:
            event, _, self._rest = self._rest.partition(b"\n\n")
            if b"event: job" in event:
                self._shown.note(event, now)

    def connection_lost(self, exc: Exception | None) -> None:
        self._shown.counts[2] += 1
        if not self._shown.ready:
            sys.exit(f"A stream was refused: {self._rest!r}")


async def poll(port: int, first: float, shown: Shown) -> None:
    """A page that asks every two seconds, on a connection that it keeps."""
    await asyncio.sleep(first)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    accept = "Accept: application/json\r\nX-User: one"
    request = f"GET /jobs/{shown.job_id} HTTP/1.1\r\nHost: bench\r\n{accept}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    next_at = loop.time()
    while True:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if not length:
            raise SystemExit(f"An odd answer: {head!r}")
        body = await reader.readexactly(int(length[1]))
        shown.counts[1] += len(head) + len(body)
        if head.startswith(b"HTTP/1.1 200"):
            shown.note(body, time.time())
        else:  # as a page does, it asks again
            shown.counts[2] += 1
        next_at = max(next_at + EVERY, loop.time())
        await asyncio.sleep(next_at - loop.time())


async def main() -> None:
    port, mode, shares = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    counts = [0, 0, 0]  # ready, bytes, lost
    pages = [Shown(job_id, counts) for job_id, readers in shares.items() for _ in range(readers)]
    loop = asyncio.get_running_loop()
    tasks = []
    for number, page in enumerate(pages):
        if mode == "poll":
            first = EVERY * number / len(pages)
            tasks.append(asyncio.create_task(poll(port, first, page)))
        else:
            await loop.create_connection(partial(Reader, page), "127.0.0.1", port)
    while counts[0] < len(pages):
        for task in tasks:
            if task.done():
                task.result()
        await asyncio.sleep(0.05)
    counts[1] = counts[2] = 0
    print(json.dumps("ready"), flush=True)
    said = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    seen: dict[float, tuple[float, list[float]]] = {}
    for page in pages:
        page.tell(said.get(page.job_id, []), seen)
    print(json.dumps({"seen": seen, "bytes": counts[1], "lost": counts[2]}), flush=True)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main())
