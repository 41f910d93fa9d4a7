"""Every text that a person waiting reads goes through here: Flask-Babel's words, else English.

The translations are a domain of our own, ``flask_offload``, and are looked for beside those of the
app (``translations/de/LC_MESSAGES/flask_offload.mo``). ``translations/flask_offload.pot`` in this
package is where they begin.
"""

from __future__ import annotations

import importlib
import typing as t
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from flask import current_app, has_app_context, has_request_context

__all__ = ["ENGLISH", "Texts", "gettext", "mark", "ngettext", "speak", "texts"]

DOMAIN = "flask_offload"
OURS = str(Path(__file__).parent.parent / "translations")


class Translations(t.Protocol):
    """What :mod:`gettext` and Babel load from a file."""

    def gettext(self, message: str) -> str: ...
    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str: ...


class Texts:
    """One language.

    :param language: Its tag, for ``lang=``.
    :param translations: ``None`` for English, as it is written here.
    """

    def __init__(self, language: str = "en", translations: Translations | None = None) -> None:
        self.language = language
        self._translations = translations

    def one(self, message: str) -> str:
        return self._translations.gettext(message) if self._translations else message

    def many(self, singular: str, plural: str, number: int) -> str:
        if self._translations:
            return self._translations.ngettext(singular, plural, number)
        return singular if number == 1 else plural


ENGLISH = Texts()
_spoken: ContextVar[Texts | None] = ContextVar("offload_texts", default=None)


def texts() -> Texts:
    """The language of this request, for what is said after it, as a stream does."""
    spoken = _spoken.get()
    if spoken is not None:
        return spoken
    if not has_app_context() or not has_request_context():
        return ENGLISH
    if "babel" not in current_app.extensions:
        return ENGLISH
    babel = importlib.import_module("flask_babel")
    locale = babel.get_locale()
    domain = current_app.extensions.setdefault("offload_texts", {}).get("domain")
    if domain is None:
        folders = [OURS, *babel.get_babel().translation_directories]
        domain = babel.Domain(translation_directories=folders, domain=DOMAIN)
        current_app.extensions["offload_texts"]["domain"] = domain
    found = domain.get_translations()
    # An app that has Flask-Babel and no words for us goes on in English, and must say so.
    known = bool(getattr(found, "_catalog", None))
    return Texts(str(locale).replace("_", "-"), found) if known else ENGLISH


@contextmanager
def speak(language: Texts) -> t.Iterator[None]:
    """Say what follows in a language."""
    token = _spoken.set(language)
    try:
        yield
    finally:
        _spoken.reset(token)


def gettext(message: str, /, **values: t.Any) -> str:
    """A text in the language of the reader."""
    text = texts().one(message)
    return text % values if values else text


def ngettext(singular: str, plural: str, number: int, /, **values: t.Any) -> str:
    """A text that depends on a number, which it may call ``%(number)s``."""
    text = texts().many(singular, plural, number)
    return text % {"number": f"{number:,}", **values}


def mark(message: str) -> str:
    """Has a text collected for translation that is looked up later."""
    return message
