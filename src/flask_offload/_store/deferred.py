"""Half of redis-py waits until someone uses it.

``import redis`` loads its client for asyncio, too, which takes more than a megabyte in each
process, and which nothing here uses. An app that does gets it at its first use.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
import typing as t
from importlib.machinery import PathFinder
from types import ModuleType

__all__ = ["defer"]

_lock = threading.RLock()


class _Deferred(ModuleType):
    """A package that runs its code when a name of it is wanted for the first time."""

    def __getattr__(self, name: str) -> t.Any:
        # Who looks through all modules asks for these; import itself has what it needs.
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        if PathFinder.find_spec(f"{self.__name__}.{name}", self.__path__):
            # A part of it, which must not wait for all of it: that may be what wants the part.
            return importlib.import_module(f"{self.__name__}.{name}")
        # Another thread waits until all names are there.
        with _lock:
            loader = self.__dict__.pop("_deferred", None)
            if loader is not None:
                loader.exec_module(self)
            if name not in self.__dict__:
                raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
            return self.__dict__[name]


def defer(package: str, name: str) -> None:
    """Have ``package.name``, a package itself, wait for its first use, unless it is loaded.

    Packages and modules in it are found, and load as usual.
    """
    if package in sys.modules or (found := importlib.util.find_spec(package)) is None:
        return
    spec = PathFinder.find_spec(f"{package}.{name}", found.submodule_search_locations)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _Deferred
        module.__dict__["_deferred"] = spec.loader
        sys.modules[spec.name] = module


defer("redis", "asyncio")
