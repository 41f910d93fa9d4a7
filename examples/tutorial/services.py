"""What the app talks to: an SMTP server that delivers into a folder, and a third-party API that is
slow and fails now and then. Both for the demo and the tests, on this machine only.

``make demo`` starts them; ``python services.py`` runs them alone, where the app expects them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session
from werkzeug.exceptions import HTTPException, NotFound, ServiceUnavailable
from werkzeug.routing import Map, Rule
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

import outbox
from settings import API_PORT, SMTP_PORT

LOOPBACK = "127.0.0.1"


class Deliver:
    """Takes every mail and keeps it in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if not isinstance(envelope.content, bytes):
            return "554 No content"
        outbox.save(self.folder, envelope.content)
        return "250 Kept"


@contextlib.contextmanager
def smtp_sink(folder: Path, port: int = 0) -> Iterator[int]:
    """Take mails into ``folder`` while the block runs; gives the port."""
    try:
        listener = socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise SystemExit(f"Port {port} cannot be used ({error.strerror}).") from None
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(
        loop.create_server(
            # A name of its own: SMTP would look up this machine's, which can take seconds.
            lambda: SMTP(Deliver(folder), hostname="localhost", data_size_limit=1_000_000),
            sock=listener,
        )
    )
    thread = threading.Thread(target=loop.run_forever, name="smtp-sink", daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
        loop.close()


class FlakyApi:
    """Prices of three shares. Of three requests for a share, the first is refused, the second is
    answered too late, and the third gets the price.

    :param late: Seconds until the late answer.
    """

    PRICES = {"ACME": 118.0, "INIT": 42.5, "UMBR": 7.25}

    def __init__(self, late: float = 4.0) -> None:
        self.late = late
        self.asked: Counter[str] = Counter()
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._urls = Map([Rule("/quotes/<symbol>", endpoint="quote")])

    def __call__(self, environ, start_response):  # type: ignore[no-untyped-def]
        try:
            _, values = self._urls.bind_to_environ(environ).match(method="GET")
            response: Response | HTTPException = self.quote(Request(environ), **values)
        except HTTPException as error:
            response = error
        return response(environ, start_response)

    def quote(self, request: Request, symbol: str) -> Response:
        if symbol not in self.PRICES:
            raise NotFound
        with self._lock:
            turn = self.asked[symbol] % 3
            self.asked[symbol] += 1
        self.closing.wait(self.late if turn == 1 else 0.3)
        if turn == 0:
            raise ServiceUnavailable
        price = round(self.PRICES[symbol] * random.uniform(0.97, 1.03), 2)  # noqa: S311
        return Response(
            f'{{"symbol": "{symbol}", "price": {price}, "currency": "EUR"}}',
            content_type="application/json",
        )


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002
        """Keep the terminal for the app and its worker."""


@contextlib.contextmanager
def flaky_api(port: int = 0, late: float = 4.0) -> Iterator[str]:
    """Serve the API while the block runs; gives the address to ask for a quote."""
    api = FlakyApi(late)
    server = make_server(LOOPBACK, port, api, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, name="flaky-api", daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}/quotes"
    finally:
        api.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def main() -> None:
    folder = Path(__file__).parent / "instance" / "outbox"
    with smtp_sink(folder, SMTP_PORT) as port, flaky_api(API_PORT) as url:
        print(f"Mail server: {LOOPBACK}:{port}, delivers to /outbox of the app")
        print(f"Third-party API: {url}/ACME")
        print("Press Ctrl-C to stop.")
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    main()
