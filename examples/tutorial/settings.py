"""What the app reads from its environment; ``make demo`` and ``services.py`` fit the defaults."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

import httpx

SMTP_PORT = 1025
API_PORT = 5099


def from_environ(instance: str) -> dict[str, Any]:
    """The settings of the app, with its instance folder for what it has to keep."""
    env = os.environ
    quote_url = env.get("QUOTE_API_URL", f"http://127.0.0.1:{API_PORT}/quotes")
    return {
        "SECRET_KEY": env.get("SECRET_KEY") or secret_key(Path(instance)),
        # None means "not set": an embedded server, which also carries the messages.
        "OFFLOAD_URL": env.get("OFFLOAD_URL"),
        "OFFLOAD_BROKER_URL": env.get("OFFLOAD_BROKER_URL"),
        "BOOTSTRAP_SERVE_LOCAL": True,
        "DEMO_SECONDS": int(env.get("DEMO_SECONDS", "15")),
        "MAIL_SERVER": env.get("MAIL_SERVER", "127.0.0.1"),
        "MAIL_PORT": int(env.get("MAIL_PORT", SMTP_PORT)),
        "MAIL_USERNAME": env.get("MAIL_USERNAME"),
        "MAIL_PASSWORD": env.get("MAIL_PASSWORD"),
        "MAIL_USE_TLS": env.get("MAIL_USE_TLS") == "1",
        "MAIL_DEFAULT_SENDER": env.get("MAIL_DEFAULT_SENDER", "tutorial@example.org"),
        "MAIL_TIMEOUT": 10,
        "OUTBOX_DIR": env.get("OUTBOX_DIR", os.path.join(instance, "outbox")),
        "QUOTE_API_URL": quote_url,
        "QUOTE_ORIGINS": frozenset(env.get("QUOTE_ORIGINS", origin(quote_url)).split()),
    }


def origin(url: httpx.URL | str) -> str:
    """Scheme, host and port of ``url``: a host alone would open every port of the machine."""
    parts = httpx.URL(url)
    return f"{parts.scheme}://{parts.netloc.decode()}"


def secret_key(folder: Path) -> str:
    """The key kept in ``folder``, made at the first call, readable by this user only."""
    path = folder / "secret_key"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Web and worker start at the same moment: a link, unlike a write, is there whole or not
        # at all, and only the first one wins.
        with tempfile.NamedTemporaryFile("w", dir=folder) as file:  # mode 0600
            file.write(secrets.token_hex(32))
            file.flush()
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    return path.read_text()
