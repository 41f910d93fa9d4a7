"""The session as a background view sees it."""

from __future__ import annotations

import typing as t

from flask.json.tag import TaggedJSONSerializer
from flask.sessions import SessionMixin

from ..exceptions import BackgroundError

__all__ = ["ReadOnlySession"]

_tagged = TaggedJSONSerializer()
FLASHES = "_flashes"


class ReadOnlySession(dict[str, t.Any], SessionMixin):
    """What the session was when the job was enqueued.

    Its cookie has been sent by then, and other requests may have changed it since. So a write
    raises; only flashed messages are taken, and travel back with the response.

    :raises BackgroundError: At a write, and for a value that could not travel.
    """

    def __init__(self, captured: t.Mapping[str, t.Any]) -> None:
        super().__init__({key: _tagged.loads(value) for key, value in captured["values"].items()})
        self._left_out = frozenset(captured["left_out"])

    @property
    def flashes(self) -> list[t.Any]:
        """The messages that nobody has shown yet."""
        return list(self.get(FLASHES, ()))

    def __missing__(self, key: str) -> t.NoReturn:
        self._check(key)
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        self._check(key)
        return super().__contains__(key)

    def get(self, key: str, default: t.Any = None) -> t.Any:
        self._check(key)
        return super().get(key, default)

    def _check(self, key: object) -> None:
        if key in self._left_out:
            raise BackgroundError(
                f"session[{key!r}] is not JSON, so it did not travel to the background view. Keep "
                "an id in the session, and load the object in the view."
            )

    def __setitem__(self, key: str, value: t.Any) -> None:
        if key != FLASHES:
            _refuse(key)
        super().__setitem__(key, value)

    def pop(self, key: str, *default: t.Any) -> t.Any:
        if key != FLASHES:
            _refuse(key)
        return super().pop(key, *default)

    def __delitem__(self, key: str) -> None:
        _refuse(key)

    def setdefault(self, key: str, default: t.Any = None) -> t.Any:
        if key not in self:
            _refuse(key)
        return self[key]

    def update(self, *args: t.Any, **kwargs: t.Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __ior__(self, other: t.Any) -> t.Any:  # type: ignore[misc]
        self.update(other)
        return self

    def clear(self) -> None:
        _refuse("")

    def popitem(self) -> t.NoReturn:
        _refuse("")

    # Flask asks for both, and so do views that changed what is inside of a value.
    @property
    def modified(self) -> bool:
        return False

    @modified.setter
    def modified(self, value: bool) -> None:
        if value:
            _refuse("")

    @property
    def permanent(self) -> bool:
        return bool(self.get("_permanent", False))

    @permanent.setter
    def permanent(self, value: bool) -> None:
        if bool(value) != self.permanent:
            _refuse("_permanent")


def _refuse(key: str) -> t.NoReturn:
    what = f"session[{key!r}]" if key else "The session"
    raise BackgroundError(
        f"{what} cannot be changed in a background view: the answer with the session's cookie was "
        "sent when the job was enqueued. Change it in a decorator above @offload.background, or in "
        "the view that the response leads to."
    )
