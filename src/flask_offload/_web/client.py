"""The connection of a live stream: whether its client is there, and how to end it.

A WSGI application learns that a client has left when it next writes, and never that it does not
read: the server waits in ``send`` then. Gunicorn and the development server hand out the socket;
of other servers nothing is known here, and nothing is done.
"""

from __future__ import annotations

import _socket
import contextlib
import socket
import typing as t

__all__ = ["Client"]

KEYS = ("gunicorn.socket", "werkzeug.socket")


class Client:
    """
    :param connection: The socket. It must be open for as long as this is used.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @classmethod
    def of(cls, environ: t.Mapping[str, t.Any]) -> Client | None:
        """The client of a request, where the server tells."""
        # In HTTP/2, the connection carries other requests, too.
        alone = environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1")
        connection = next((environ[key] for key in KEYS if environ.get(key)), None)
        return cls(connection) if connection is not None and alone else None

    def gone(self) -> bool:
        """Whether the client has closed the connection."""
        try:
            # An object of our own for the same connection: of an SSL socket, or one of gevent's,
            # this would wait, or read what is not ours.
            peek = _socket.socket(fileno=self._connection.fileno())
        except (OSError, ValueError):  # closed already
            return True
        try:
            return peek.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            peek.detach()

    def cut(self) -> None:
        """End the connection; a ``send`` that waits on it fails."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
