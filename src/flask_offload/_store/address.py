"""A URL of the user's, as redis-py's connections take it, and what a failed one is told."""

from __future__ import annotations

import functools
import ssl
import typing as t

import redis

from . import sentinel

__all__ = ["Reason", "connection_options", "reason", "redis_url", "with_ours"]

#: Bytes that a connection reads at a time. redis-py keeps a buffer of that size for each of the
#: eleven of a worker, by default of twice as much.
READ = 16_384

CLIENT_CERTIFICATE = (
    "If it wants to see a certificate, set ssl_certfile and ssl_keyfile in OFFLOAD_URL to one that "
    "its CA signed."
)
_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}


def redis_url(url: str) -> str:
    """A URL with the names of schemes that redis-py knows."""
    scheme, colon, rest = url.partition("://")
    return f"{_SCHEMES.get(scheme, scheme)}{colon}{rest}"


@functools.cache
def _driver() -> redis.DriverInfo:
    """What connections tell the server of this library.

    Without it, redis-py looks its own version up among the installed packages for each connection:
    a millisecond, and in a forked process megabytes that it shared with the others.
    """
    return redis.DriverInfo()


def connection_options(url: str) -> dict[str, t.Any]:
    """What ``redis.ConnectionPool`` takes, a ``connection_class`` included.

    :raises ConfigError: A ``sentinel://`` URL is malformed.
    :raises ValueError: Another one is.
    """
    return with_ours(_options(redis_url(url)))


def with_ours(options: dict[str, t.Any]) -> dict[str, t.Any]:
    """Options of a connection, with what all of ours have in common."""
    if not options.keys() & {"lib_name", "lib_version"}:
        options["driver_info"] = _driver()
    options.setdefault("socket_read_size", READ)
    return options


def _options(url: str) -> dict[str, t.Any]:
    if not url.startswith("sentinel://"):
        options = sentinel.server_options(url)
        options.setdefault("connection_class", redis.Connection)
        return options
    primary, server = sentinel.parse(url)
    options = sentinel.server_options(server)
    tls = options.pop("connection_class", None) is redis.SSLConnection
    del options["host"]
    kind = sentinel.SentinelTLSConnection if tls else sentinel.SentinelConnection
    return {**options, "connection_class": kind, "connection_pool": primary}


class Reason(t.NamedTuple):
    """Why a connection failed, and how to mend it.

    :param passes: It may end by itself.
    """

    why: str
    mend: str
    passes: bool = False

    def __str__(self) -> str:
        return f"{self.why} {self.mend}"


def reason(error: BaseException | None) -> Reason | None:
    """The reason, where there is more to say than what the error does."""
    cause = error
    while cause is not None:
        if isinstance(cause, sentinel.PrimaryUnknown):
            return Reason(cause.why, cause.mend, cause.passes)
        if isinstance(cause, ssl.SSLError):
            return _of_tls(cause)
        if isinstance(cause, TimeoutError) and "handshake" in str(cause):
            # A server without TLS waits for the rest of what it takes for a command.
            return Reason(
                "The server does not answer by TLS.",
                "Unless it hangs, set OFFLOAD_URL to the port that has it, or to redis:// "
                "without an s.",
                passes=True,
            )
        # redis-py raises its own without a "from".
        cause = cause.__cause__ or cause.__context__
    return None


def _of_tls(error: ssl.SSLError) -> Reason:
    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message or str(error)
        why = f"The certificate of the server is not accepted ({said.rstrip('.')})."
        if "ostname mismatch" in said or "IP address mismatch" in said:
            return Reason(why, "Set OFFLOAD_URL to a name that the certificate has.")
        if "expired" in said or "not yet valid" in said:
            return Reason(why, "Renew it, or set the clocks.")
        return Reason(why, "Set ssl_ca_certs in OFFLOAD_URL to the file of the CA that signed it.")
    said = str(error).upper()
    if "CERTIFICATE_REQUIRED" in said or "HANDSHAKE_FAILURE" in said or "UNKNOWN_CA" in said:
        return Reason(
            f"The server refuses the certificate of this client, or its lack ({error.reason}).",
            CLIENT_CERTIFICATE,
        )
    if isinstance(error, ssl.SSLEOFError):
        return Reason(
            "The server closed the TLS connection.",
            CLIENT_CERTIFICATE,
            passes=True,
        )
    if "WRONG_VERSION" in said or "RECORD_LAYER" in said:
        return Reason(
            f"There is no TLS on that port ({error.reason}).",
            "Set OFFLOAD_URL to the port that has it, or to redis:// without an s.",
        )
    return Reason(f"TLS failed ({error}).", "See the ssl_ options of OFFLOAD_URL.", passes=True)
