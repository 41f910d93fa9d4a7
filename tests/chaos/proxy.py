"""A TCP proxy that fails as networks do."""

from __future__ import annotations

import re
import select
import socket
import threading
import typing as t
from contextlib import suppress

__all__ = ["Proxy"]

TOKEN = re.compile(rb"cut-\d+")


class Proxy:
    """Stands between clients and a server, until it is told to misbehave.

    ``pass`` carries bytes; ``cut`` closes what is open and refuses what is new; ``swallow`` takes
    bytes and connections and gives nothing back, for ever on each connection that lived through
    it, as a firewall does that forgot them; ``cut-replies`` delivers a request that names a token
    (``cut-<number>``) and cuts the connection instead of the reply, once a token.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.mode = "pass"
        #: The mode that follows the first reply that was cut; empty for the same.
        self.after_cut = ""
        self.cuts = 0
        self._seen: set[bytes] = set()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, mode: str) -> None:
        with self._lock:
            self.mode = mode
            pairs = list(self._pairs) if mode == "cut" else []
        for pair in pairs:
            self._drop(pair)

    def close(self) -> None:
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._drop(pair)

    def _drop(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self._pairs.discard(pair)
        for end in pair:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.mode == "cut":
                client.close()
                continue
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.target), 5)
        except OSError:
            client.close()
            return
        pair = (client, server)
        with self._lock:
            self._pairs.add(pair)
        try:
            with suppress(OSError):
                self._pump(client, server)
        finally:
            self._drop(pair)
            client.close()
            server.close()

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        swallowed = cut = False
        while not self._closed:
            ready, _, _ = select.select([client, server], [], [], 0.1)
            # Also a silent connection is forgotten by the firewall.
            swallowed = swallowed or self.mode == "swallow"
            for source in ready:
                data = source.recv(65_536)
                if not data:
                    if swallowed:
                        self._sit_out()
                    return
                if swallowed:
                    continue
                if source is client:
                    cut = cut or self._names_new_token(data)
                elif cut:
                    self.cuts += 1
                    self.mode = self.after_cut or self.mode
                    return
                other[source].sendall(data)

    def _sit_out(self) -> None:
        """One end gave up; the other one is not told."""
        idle = threading.Event()
        while not self._closed and not idle.wait(0.2):
            pass

    def _names_new_token(self, data: bytes) -> bool:
        if self.mode != "cut-replies":
            return False
        with self._lock:
            new = set(TOKEN.findall(data)) - self._seen
            self._seen |= new
        return bool(new)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: t.Any) -> None:
        self.close()
