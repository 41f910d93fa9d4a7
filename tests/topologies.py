"""Servers that are reached in other ways than by one plain port: TLS, a socket, sentinels."""

from __future__ import annotations

import contextlib
import select
import shutil
import socket
import socketserver
import subprocess
import tempfile
import threading
import typing as t
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
import redis

from servers import Process, Valkey, free_port
from waiting import wait_until

REDIS = shutil.which("redis-server")
HOW_TO_GET_IT = "takes a redis-server with TLS and sentinel: apt install redis-server"
MASTER = "offload-primary"

needs_redis = pytest.mark.skipif(REDIS is None, reason=HOW_TO_GET_IT)


def _openssl(*arguments: str, folder: Path) -> None:
    done = subprocess.run(
        ["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


class Certificates:
    """A CA, and certificates that it signed: of a server, and of a client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _openssl(
            *"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(),
            *"-subj /CN=ca -keyout ca.key -out ca.pem".split(), folder=folder,
        )  # fmt: skip
        for name in ("server", "client"):
            self._sign(name)

    def _sign(self, name: str) -> None:
        _openssl(
            *"req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes".split(),
            *f"-subj /CN={name} -keyout {name}.key -out {name}.csr".split(), folder=self.folder,
        )  # fmt: skip
        extensions = self.folder / "names"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        _openssl(
            *f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2".split(),
            *f"-extfile names -out {name}.pem".split(), folder=self.folder,
        )  # fmt: skip

    def __getitem__(self, name: str) -> Path:
        return self.folder / name

    @property
    def of_server(self) -> dict[str, str]:
        """The settings of a server that has them."""
        return {
            "tls-cert-file": str(self["server.pem"]),
            "tls-key-file": str(self["server.key"]),
            "tls-ca-cert-file": str(self["ca.pem"]),
            "tls-replication": "yes",
        }

    def query(self, *, client: bool = False) -> str:
        """The options of a URL."""
        parts = {"ssl_ca_certs": self["ca.pem"]}
        if client:
            parts |= {"ssl_certfile": self["client.pem"], "ssl_keyfile": self["client.key"]}
        return "&".join(f"{key}={value}" for key, value in parts.items())


def _flags(settings: dict[str, str]) -> list[str]:
    return [part for key, value in settings.items() for part in (f"--{key}", value)]


class TLSServer(Valkey):
    """Debian's Redis, by TLS only, for clients that show a certificate."""

    def __init__(
        self,
        folder: Path,
        certificates: Certificates | None = None,
        arguments: t.Sequence[str] = (),
    ) -> None:
        assert REDIS
        self.certificates = certificates or Certificates(folder)
        arguments = [*arguments, *_flags(self.certificates.of_server)]
        super().__init__(folder, binary=REDIS, arguments=arguments)
        index = self._command.index("--port")
        self._command[index : index + 1] = ["--port", "0", "--tls-port"]
        self.bare = f"rediss://127.0.0.1:{self.port}/0"
        self.url = f"{self.bare}?{self.certificates.query(client=True)}"


class SentinelSetup:
    """A primary, a replica of it, and a sentinel that watches them.

    :param password: Of the user of both servers and of the sentinel.
    """

    def __init__(self, folder: Path, *, password: str = "", tls: bool = False) -> None:
        assert REDIS
        self.folder = folder
        self.certificates = Certificates(folder) if tls else None
        secret = ["--requirepass", password, "--masterauth", password] if password else []
        self.servers: list[Valkey] = []
        arguments = [*secret, "--repl-diskless-sync-delay", "0"]
        for name in ("one", "two"):
            (folder / name).mkdir()
            if self.certificates:
                server: Valkey = TLSServer(folder / name, self.certificates, arguments)
            else:
                server = Valkey(folder / name, binary=REDIS, arguments=arguments)
            if password:
                server.url = server.url.replace("//", f"//:{password}@")
            self.servers.append(server)
        self.port = free_port()
        self.password = password
        self.process: Process | None = None

    def url(self, *more: str, master: str = MASTER) -> str:
        """With the sentinel, and one before it that is not there."""
        login = f":{self.password}@" if self.password else ""
        query = [f"master={master}", *more]
        if self.password:
            query.append(f"sentinel_password={self.password}")
        if self.certificates:
            query.append(self.certificates.query(client=True))
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{self.port}"
        return f"sentinel://{login}{hosts}/0?{'&'.join(query)}"

    def start(self) -> SentinelSetup:
        first, second = self.servers
        first.start()
        second._command += ["--replicaof", "127.0.0.1", str(first.port)]
        second.start()
        with second.client() as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", 20)
        config = self.folder / "sentinel.conf"
        lines = [
            f"{'tls-port' if self.certificates else 'port'} {self.port}",
            "bind 127.0.0.1", f"dir {self.folder}",
            f"sentinel monitor {MASTER} 127.0.0.1 {first.port} 1",
            f"sentinel down-after-milliseconds {MASTER} 1000",
            f"sentinel failover-timeout {MASTER} 5000",
        ]  # fmt: skip
        if self.password:
            lines += [f"sentinel auth-pass {MASTER} {self.password}"]
            lines += [f"requirepass {self.password}"]
        if self.certificates:
            settings = {"port": "0", **self.certificates.of_server}
            lines = [*(f"{key} {value}" for key, value in settings.items()), *lines]
        config.write_text("\n".join(lines) + "\n")
        self.process = Process(
            str(REDIS), str(config), "--sentinel", log=self.folder / "sentinel.log"
        )
        wait_until(lambda: self._replicas() == 1, 20, message=lambda: self.log)
        return self

    @property
    def log(self) -> str:
        return (self.folder / "sentinel.log").read_text()

    @property
    def tls(self) -> dict[str, t.Any]:
        """What redis-py's client takes."""
        if not self.certificates:
            return {}
        return {"ssl": True, **dict(parse_qsl(self.certificates.query(client=True)))}

    def ask(self) -> redis.Redis:
        password = self.password or None
        return redis.Redis(port=self.port, password=password, decode_responses=True, **self.tls)

    def _replicas(self) -> int:
        with self.ask() as client:
            try:
                found = client.sentinel_slaves(MASTER)
            except (redis.ConnectionError, redis.ResponseError):
                return 0
            return sum(not (one["is_sdown"] or one["is_disconnected"]) for one in found)

    @property
    def primary(self) -> Valkey:
        """What the sentinel says it is."""
        with self.ask() as client:
            port = t.cast("dict[str, t.Any]", client.sentinel_master(MASTER))["port"]
        return next(server for server in self.servers if server.port == port)

    def replicated(self) -> None:
        """Return once the replica has what the primary has now."""
        with self.primary.client() as client:
            assert client.execute_command("WAIT", 1, 10_000) == 1

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
        for server in self.servers:
            server.stop()


@contextlib.contextmanager
def relabelled(server: Valkey, said: bytes, instead: bytes) -> t.Iterator[str]:
    """The URL of a server that tells something else of itself, as an old one would.

    :param instead: As long as ``said``, for replies tell their length.
    """
    assert len(said) == len(instead)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", server.port)) as behind:
                ends = {self.request: behind, behind: self.request}
                while True:
                    for end in select.select(list(ends), [], [])[0]:
                        try:
                            data = end.recv(1 << 16)
                        except ConnectionResetError:
                            return
                        if not data:
                            return
                        ends[end].sendall(data.replace(said, instead))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as front:
        front.daemon_threads = True
        front.block_on_close = False
        threading.Thread(target=front.serve_forever, args=[0.02], daemon=True).start()
        yield f"redis://127.0.0.1:{front.server_address[1]}/0"
        front.shutdown()


@contextlib.contextmanager
def running(kind: t.Callable[..., t.Any], **options: t.Any) -> t.Iterator[t.Any]:
    """One of the above, in a folder of its own that goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="offload-topology-"))
    server = kind(folder, **options)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
