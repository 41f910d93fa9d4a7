"""``OFFLOAD_*`` and ``CELERY`` of ``app.config``, checked and frozen. The only reader of them."""

from __future__ import annotations

import difflib
import typing as t
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from .exceptions import ConfigError

if t.TYPE_CHECKING:
    from flask import Flask

__all__ = ["Settings"]

DAY = 86_400.0
MB = 1_000_000

STORE_SCHEMES = ("redis", "rediss", "sentinel", "unix", "valkey", "valkeys")
BROKER_SCHEMES = (*STORE_SCHEMES, "redis+kombu", "sentinel+kombu", "amqp", "amqps", "pyamqp")

#: Keys of other set-ups, and what to use here.
REPLACED = {
    "CELERY_BROKER_URL": "OFFLOAD_BROKER_URL (or OFFLOAD_URL, which serves both)",
    "BROKER_URL": "OFFLOAD_BROKER_URL (or OFFLOAD_URL, which serves both)",
    "CELERY_RESULT_BACKEND": "OFFLOAD_URL",
    "RESULT_BACKEND": "OFFLOAD_URL",
}
#: Celery's names for two of ours, as the docs of Flask have them in the ``CELERY`` dict.
IN_CELERY = {"result_backend": "OFFLOAD_URL", "broker_url": "OFFLOAD_BROKER_URL"}
RETENTION = {"succeeded": DAY, "failed": 7 * DAY, "cancelled": 7 * DAY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one app. Durations are in seconds, sizes in bytes.

    :param url: The server that keeps the records; ``None`` stands for the embedded one.
    :param broker_url: What carries the messages; ``None`` stands for :attr:`url`.
    :param namespace: Prefix of all keys, so that apps can share a server.
    :param publish_timeout: Most that an enqueue may block a request.
    :param lease: How long a worker may be silent before its jobs are given to another. It says
        that it is alive every third of it.
    :param park_for: How long a job waits for a worker that knows its task.
    :param max_deliveries: Starts of one attempt after which a job that keeps killing its worker
        is dead.
    :param grace: How long a stopping worker waits for what it runs.
    :param max_request: Most for the body of a request to a background view, uploads included.
    :param max_response: Most for the body of its response.
    :param max_wait: Longest that ``Prefer: wait`` may hold a request; 0 for never.
    :param request_headers: Headers that travel to the worker besides the usual ones.
    :param retention: How long a finished record is kept, by state.
    :param allow_eviction: A worker starts on a server that may drop keys, too.
    :param directory: Where the embedded server and, by default, the files of jobs live.
    :param celery: Further settings for Celery, in its own lower-case names.
    """

    directory: Path
    url: str | None = None
    broker_url: str | None = None
    namespace: str = "offload"
    publish_timeout: float = 2.0
    lease: float = 30.0
    max_deliveries: int = 5
    park_for: float = 3600.0
    grace: float = 25.0
    max_payload: int = MB
    max_result: int = MB
    max_file: int = 50 * MB
    max_request: int = 50 * MB
    max_response: int = 50 * MB
    max_wait: float = 10.0
    request_headers: tuple[str, ...] = ()
    max_log_lines: int = 1_000
    max_streams: int = 100
    retention: t.Mapping[str, float] = field(default_factory=lambda: dict(RETENTION))
    dead_retention: float = 30 * DAY
    jobs_prefix: str = "/jobs"
    files_url: str
    allow_eviction: bool = False
    celery: t.Mapping[str, t.Any] = field(default_factory=dict)

    @classmethod
    def from_app(cls, app: Flask) -> Settings:
        """Read the settings of ``app``.

        :raises ConfigError: A key is unknown, replaced by another one, or has a wrong value.
        """
        config = app.config
        for key in REPLACED.keys() & config.keys():
            raise ConfigError(f"{key} is not read by Flask-Offload. Set {REPLACED[key]}.")
        for key in config:
            if key.startswith("OFFLOAD_") and key not in READERS:
                raise ConfigError(f"Unknown setting {key}.{_nearest(key, READERS)}")
        directory = Path(app.instance_path) / "offload"
        values: dict[str, t.Any] = {
            "namespace": app.import_name.rpartition(".")[2] or "offload",
            "files_url": str(directory / "files"),
        }
        celery, urls = _celery(config)
        for key, read in READERS.items():
            # None means "not set", so that values can come from os.environ.get().
            value = urls.get(key) if config.get(key) is None else config[key]
            if value is not None:
                values[key.removeprefix("OFFLOAD_").lower()] = read(key, value)
        return cls(directory=directory, celery=celery, **values)

    def retain(self, state: str) -> float:
        """Seconds for which a record that finished in ``state`` is kept."""
        return self.dead_retention if state == "dead" else self.retention[state]


def _nearest(key: str, known: t.Iterable[str]) -> str:
    match = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f" Did you mean {match[0]}?" if match else " See the page on settings for what there is."


def _celery(config: t.Mapping[str, t.Any]) -> tuple[dict[str, t.Any], dict[str, str]]:
    """The settings for Celery itself, and the URLs that stand among them."""
    celery = config.get("CELERY") or {}
    if not isinstance(celery, t.Mapping):
        raise ConfigError(f"CELERY must be a dict of Celery settings, not {celery!r}.")
    rest, urls = dict(celery), {}
    for name, key in IN_CELERY.items():
        if (url := rest.pop(name, None)) is None:
            continue
        if config.get(key) not in (None, url):
            raise ConfigError(f"{key} and CELERY[{name!r}] differ. Set one of them.")
        urls[key] = url
    broker = urls.get("OFFLOAD_BROKER_URL")
    if isinstance(broker, str) and urlsplit(broker).scheme in STORE_SCHEMES:
        # A Redis that carries the messages can keep the records too.
        urls.setdefault("OFFLOAD_URL", broker)
    return rest, urls


def _text(key: str, value: t.Any) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{key} must be a text that is not empty, not {value!r}.")
    return value


def _url(schemes: tuple[str, ...]) -> t.Callable[[str, t.Any], str]:
    def read(key: str, value: t.Any) -> str:
        url = _text(key, value)
        scheme = urlsplit(url).scheme
        try:
            if not scheme.startswith("sentinel"):  # which has several hosts
                urlsplit(url).port  # noqa: B018
        except ValueError:
            # Not the text itself: it may be part of a password.
            raise ConfigError(
                f"{key} has no number for a port. A password in it needs / as %2F and # as %23."
            ) from None
        if scheme not in schemes:
            raise ConfigError(
                f"{key} starts with {scheme or url.split('/')[0]!r}. It must be one of: "
                + ", ".join(f"{name}://" for name in schemes)
                + "."
            )
        return url

    return read


def _seconds(key: str, value: t.Any) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1
    if not 0 < seconds < float("inf") or isinstance(value, bool):
        raise ConfigError(f"{key} must be seconds above 0 (a number or timedelta), not {value!r}.")
    return seconds


def _seconds_or_none(key: str, value: t.Any) -> float:
    return 0.0 if value in (0, "0", timedelta(0)) else _seconds(key, value)


def _names(key: str, value: t.Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, t.Iterable):
        raise ConfigError(f"{key} must be a list of names, not {value!r}.")
    return tuple(_text(key, name) for name in value)


def _count(key: str, value: t.Any) -> int:
    try:
        count = int(value)
    except (TypeError, ValueError):
        count = -1
    if count < 1 or isinstance(value, bool) or (isinstance(value, float) and value != count):
        raise ConfigError(f"{key} must be a whole number of 1 or more, not {value!r}.")
    return count


def _flag(key: str, value: t.Any) -> bool:
    # From the environment comes text, and bool("False") is true.
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if str(value).lower() not in known:
        raise ConfigError(f"{key} must be True or False, not {value!r}.")
    return known[str(value).lower()]


def _prefix(key: str, value: t.Any) -> str:
    prefix = _text(key, value)
    if not prefix.startswith("/") or prefix.endswith("/") or "<" in prefix:
        raise ConfigError(f"{key} must start with a slash and not end in one, not {value!r}.")
    return prefix


def _retention(key: str, value: t.Any) -> dict[str, float]:
    if not isinstance(value, t.Mapping):
        return dict.fromkeys(RETENTION, _seconds(key, value))
    for state in value:
        if state not in RETENTION:
            raise ConfigError(f"{key} has no state {state!r}.{_nearest(str(state), RETENTION)}")
    return RETENTION | {state: _seconds(f"{key}[{state!r}]", v) for state, v in value.items()}


READERS: dict[str, t.Callable[[str, t.Any], t.Any]] = {
    "OFFLOAD_URL": _url(STORE_SCHEMES),
    "OFFLOAD_BROKER_URL": _url(BROKER_SCHEMES),
    "OFFLOAD_NAMESPACE": _text,
    "OFFLOAD_PUBLISH_TIMEOUT": _seconds,
    "OFFLOAD_LEASE": _seconds,
    "OFFLOAD_MAX_DELIVERIES": _count,
    "OFFLOAD_PARK_FOR": _seconds,
    "OFFLOAD_GRACE": _seconds,
    "OFFLOAD_MAX_PAYLOAD": _count,
    "OFFLOAD_MAX_RESULT": _count,
    "OFFLOAD_MAX_FILE": _count,
    "OFFLOAD_MAX_REQUEST": _count,
    "OFFLOAD_MAX_RESPONSE": _count,
    "OFFLOAD_MAX_WAIT": _seconds_or_none,
    "OFFLOAD_REQUEST_HEADERS": _names,
    "OFFLOAD_MAX_LOG_LINES": _count,
    "OFFLOAD_MAX_STREAMS": _count,
    "OFFLOAD_RETENTION": _retention,
    "OFFLOAD_DEAD_RETENTION": _seconds,
    "OFFLOAD_JOBS_PREFIX": _prefix,
    "OFFLOAD_FILES_URL": _text,
    "OFFLOAD_ALLOW_EVICTION": _flag,
}
