"""How a job is shown: its title and its arguments, without what is sensitive."""

from __future__ import annotations

import inspect
import json
import string
import typing as t
import weakref
from contextlib import suppress
from dataclasses import dataclass, field

from .._current import MASK

__all__ = ["Shown", "arguments", "title"]

TEXT_LIMIT = 200
TITLE_LIMIT = 120

_encode = json.JSONEncoder(default=str, ensure_ascii=False).encode


@dataclass(slots=True)
class Shown:
    """Arguments as people may see them.

    :param args, kwargs: JSON.
    :param by_name: By the names of the function's parameters, where they are known.
    :param masked: Whether something was hidden.
    :param secrets: The texts that were hidden.
    """

    args: str = "[]"
    kwargs: str = "{}"
    args_repr: str = ""
    kwargs_repr: str = ""
    by_name: dict[str, t.Any] = field(default_factory=dict)
    masked: bool = False
    secrets: list[str] = field(default_factory=list)


def arguments(task: t.Any, args: t.Sequence[t.Any], kwargs: t.Mapping[str, t.Any]) -> Shown:
    """Mask the arguments that ``task`` declares as sensitive, and shorten long ones."""
    sensitive = frozenset(getattr(task, "sensitive", ()) or ())
    parameters = _parameters(task)
    names = parameters.names
    shown = Shown()

    def show(name: str, value: t.Any) -> t.Any:
        if name not in sensitive:
            return _short(value)
        shown.masked = True
        shown.secrets.extend(_texts(value))
        return MASK

    # Past the last name are the values of *args; they share its name.
    rest = names[-1] if names else ""
    pairs = [(names[i] if i < len(names) else rest, value) for i, value in enumerate(args)]
    shown_args = [show(name, value) for name, value in pairs]
    shown_kwargs = {name: show(name, value) for name, value in kwargs.items()}
    shown.by_name = {
        name: value for name, value in parameters.defaults.items() if name not in sensitive
    }
    shown.by_name |= {name: value for (name, _), value in zip(pairs, shown_args, strict=True)}
    shown.by_name |= shown_kwargs
    shown.args, shown.kwargs = _dumps(shown_args), _dumps(shown_kwargs)
    shown.args_repr, shown.kwargs_repr = repr(tuple(shown_args)), repr(shown_kwargs)
    return shown


def title(task: t.Any, name: str, shown: Shown) -> str:
    """The human title of a job: the task's own, or its function's name made readable."""
    template = getattr(task, "title", None)
    if not template:
        words = name.rpartition(".")[2].replace("_", " ").strip()
        return words[:1].upper() + words[1:]
    try:
        text = _Title().vformat(template, (), shown.by_name)
    except (LookupError, ValueError, AttributeError):
        # A title must never keep a job from being enqueued.
        text = template
    return text[:TITLE_LIMIT]


class _Title(string.Formatter):
    """Fills in names only: no attributes and no items of what a client sent."""

    def get_field(self, field_name: str, args: t.Any, kwargs: t.Any) -> tuple[t.Any, str]:
        return kwargs[field_name], field_name


@dataclass(frozen=True, slots=True)
class _Parameters:
    """Of the function of a task.

    :param bound: Whether they are those of a method, without the first.
    :param names: Those that take positional arguments.
    """

    bound: bool = False
    names: tuple[str, ...] = ()
    defaults: dict[str, t.Any] = field(default_factory=dict)


#: Kept, because a signature takes longer to find than all else that an enqueue does.
_known: weakref.WeakKeyDictionary[t.Any, _Parameters] = weakref.WeakKeyDictionary()


def _parameters(task: t.Any) -> _Parameters:
    run = getattr(task, "run", None)
    function = getattr(run, "__func__", run)
    bound = function is not run
    try:
        known = _known.get(function)
    except TypeError:
        known = None
    if known is None or known.bound is not bound:
        known = _inspected(run, bound)
        with suppress(TypeError):  # of a kind that nobody can watch
            _known[function] = known
    return known


def _inspected(run: t.Any, bound: bool) -> _Parameters:
    try:
        parameters = inspect.signature(run).parameters.values()
    except (TypeError, ValueError, AttributeError):
        return _Parameters(bound)
    by_keyword = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    return _Parameters(
        bound,
        tuple(p.name for p in parameters if p.kind not in by_keyword),
        {p.name: p.default for p in parameters if p.default is not p.empty},
    )


def _short(value: t.Any) -> t.Any:
    if isinstance(value, str):
        return value if len(value) <= TEXT_LIMIT else value[:TEXT_LIMIT] + "…"
    if value is None or isinstance(value, bool | int | float):
        return value
    text = _dumps(value)
    return value if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + "…"


def _dumps(value: t.Any) -> str:
    return _encode(value)


def _texts(value: t.Any) -> t.Iterator[str]:
    """Every text inside a sensitive value; numbers too, as they would be printed."""
    if isinstance(value, t.Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _texts(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
