"""A folder of mails: the SMTP sink of ``services.py`` writes it, the page ``/outbox`` reads it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

KEEP = 100


@dataclass(frozen=True)
class Mail:
    """A mail that arrived, as plain text."""

    sender: str
    to: str
    subject: str
    text: str
    arrived: datetime


def save(folder: Path, content: bytes) -> None:
    """Keep a mail; only the newest :data:`KEEP` stay."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    # Renamed when it is whole, so that the page never reads half a mail.
    os.rename(name, folder / f"{time.time_ns():020}.eml")
    for path in sorted(folder.glob("*.eml"), reverse=True)[KEEP:]:
        path.unlink(missing_ok=True)


def read(folder: Path) -> Iterator[Mail]:
    """The mails that arrived, newest first."""
    for path in sorted(folder.glob("*.eml"), reverse=True):
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # the sink dropped it, to make room
            continue
        mail = message_from_bytes(content, _class=EmailMessage, policy=default)
        arrived = datetime.fromtimestamp(int(path.stem) / 1e9, UTC)
        yield Mail(
            sender=str(mail["From"] or ""),
            to=str(mail["To"] or ""),
            subject=str(mail["Subject"] or ""),
            text=_text(mail),
            arrived=arrived,
        )


def _text(mail: EmailMessage) -> str:
    part = mail.get_body(("plain",))
    if part is None:
        return ""
    try:
        return str(part.get_content())
    except LookupError:  # a charset that nobody knows
        payload = part.get_payload(decode=True)
        return payload.decode("ascii", "replace") if isinstance(payload, bytes) else ""
