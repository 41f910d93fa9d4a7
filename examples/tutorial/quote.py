"""A careful client for a third-party HTTP API: it knows whom it may call, how long it waits, how
much it reads, and which faults are worth another try."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Container
from typing import Any

import httpx

from flask_offload import UserError
from settings import origin

TIMEOUT = httpx.Timeout(3.0, connect=2.0)
#: The timeouts above are per read; a server that drips could stretch those for ever.
DEADLINE = 10.0
MAX_BYTES = 64_000
MAX_REDIRECTS = 3


class NoAnswer(UserError):
    """Not now, but perhaps in a moment. Celery tries again; the last one reaches the person."""


def fetch_quote(url: str, symbol: str, origins: Container[str]) -> dict[str, Any]:
    """Ask for the price of a share.

    :param origins: What may be called, as in ``https://api.example.com``; redirects, too.
    :raises NoAnswer: Nothing usable came back this time.
    :raises UserError: Nothing usable will come back.
    """
    match get_json(f"{url}/{symbol}", origins):
        case {"symbol": str(name), "price": float(price), "currency": str(currency)}:
            if math.isfinite(price):
                return {"symbol": name, "price": price, "currency": currency}
    raise NoAnswer("The exchange sent something that is not a quote.")


def get_json(url: str, origins: Container[str]) -> Any:
    """GET ``url``, with redirects, and nothing that is not in ``origins``. Numbers are floats."""

    def check(request: httpx.Request) -> None:
        # httpx calls this for the first request and for each one that a redirect leads to.
        if origin(request.url) not in origins:
            raise UserError(f"{request.url.host} is not a host that this app may call.")

    client = httpx.Client(
        timeout=TIMEOUT,
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        event_hooks={"request": [check]},
        # A proxy from the environment would make the call in our place, past the check.
        trust_env=False,
    )
    deadline = time.monotonic() + DEADLINE
    body = bytearray()
    try:
        with client, client.stream("GET", url) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise UserError("The exchange sent more than a quote can be.")
                if time.monotonic() > deadline:
                    raise NoAnswer("The exchange takes too long to answer.")
    except httpx.TooManyRedirects as error:
        raise UserError("The exchange sends us round in circles.") from error
    except httpx.TimeoutException as error:
        raise NoAnswer("The exchange takes too long to answer.") from error
    except httpx.TransportError as error:
        raise NoAnswer("The exchange cannot be reached.") from error
    if response.status_code == httpx.codes.NOT_FOUND:
        raise UserError("The exchange does not know this share.")
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
        raise NoAnswer(f"The exchange is not available (it answered {response.status_code}).")
    response.raise_for_status()
    try:
        return json.loads(body, parse_int=float)
    except ValueError as error:
        raise NoAnswer("The exchange sent something that is not a quote.") from error
