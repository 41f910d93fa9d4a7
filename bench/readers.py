"""The browsers of ``streams.py``: many in one process, each with a connection of its own.

    python -m bench.readers <port> <stream|poll> <JSON: readers per job id>

Says when all have read once; after a line on its standard input it tells, as JSON, of each event
when it was sent, when the server had it and how late each of its readers read it, all in seconds.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sys
import time

#: What a job says: when it said it.
STAMP = re.compile(rb'"message":"(\d+\.\d+)"')
#: When the server noted that, in milliseconds.
NOTED = re.compile(rb"^id: (\d+)-", re.MULTILINE)
EVERY = 2.0

Seen = dict[str, tuple[float, list[float]]]


class Reader(asyncio.Protocol):
    """A page with a stream."""

    def __init__(self, job_id: str, seen: Seen, counts: list[int]) -> None:
        self._request = (
            f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: bench\r\nX-User: one\r\n\r\n".encode()
        )
        self._seen = seen
        self._counts = counts
        self._rest = b""
        self._ready = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self._counts[1] += len(data)
        self._rest += data
        while b"\n\n" in self._rest:
            event, _, self._rest = self._rest.partition(b"\n\n")
            if b"event: job" not in event:
                continue
            if not self._ready:
                self._ready = True
                self._counts[0] += 1
            note(event, now, self._seen)

    def connection_lost(self, exc: Exception | None) -> None:
        self._counts[2] += 1


def note(event: bytes, now: float, seen: Seen) -> None:
    stamp, noted = STAMP.search(event), NOTED.search(event)
    if stamp:
        key = stamp[1].decode()
        at = int(noted[1]) / 1000 if noted else 0.0
        seen.setdefault(key, (at, []))[1].append(now - float(key))


async def poll(port: int, job_id: str, first: float, seen: Seen, counts: list[int]) -> None:
    """A page that asks every two seconds, on a connection that it keeps."""
    await asyncio.sleep(first)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    accept = "Accept: application/json\r\nX-User: one"
    request = f"GET /jobs/{job_id} HTTP/1.1\r\nHost: bench\r\n{accept}\r\n\r\n".encode()
    known = b""
    loop = asyncio.get_running_loop()
    next_at = loop.time()
    while True:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if not head.startswith(b"HTTP/1.1 200") or not length:
            raise SystemExit(f"An odd answer: {head!r}")
        body = await reader.readexactly(int(length[1]))
        counts[1] += len(head) + len(body)
        found = STAMP.search(body)
        if not known:
            counts[0] += 1
        if found and found[1] != known:
            note(body, time.time(), seen)
        known = found[1] if found else b"-"
        next_at = max(next_at + EVERY, loop.time())
        await asyncio.sleep(next_at - loop.time())


async def main() -> None:
    port, mode, shares = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    seen: Seen = {}
    counts = [0, 0, 0]  # ready, bytes, lost
    jobs = [job_id for job_id, readers in shares.items() for _ in range(readers)]
    loop = asyncio.get_running_loop()
    tasks = []
    for number, job_id in enumerate(jobs):
        if mode == "poll":
            first = EVERY * number / len(jobs)
            tasks.append(asyncio.create_task(poll(port, job_id, first, seen, counts)))
        else:
            await loop.create_connection(
                lambda job_id=job_id: Reader(job_id, seen, counts),  # type: ignore[misc]
                "127.0.0.1",
                port,
            )
    while counts[0] < len(jobs):
        if counts[2]:
            raise SystemExit("A stream was refused.")
        for task in tasks:
            if task.done():
                task.result()
        await asyncio.sleep(0.05)
    seen.clear()
    counts[1] = 0
    print(json.dumps("ready"), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    print(json.dumps({"seen": seen, "bytes": counts[1], "lost": counts[2]}), flush=True)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main())
