from __future__ import annotations

import typing as t

import pytest

from flask_offload._celery.describe import arguments, title


class Task:
    def __init__(self, fun: t.Callable[..., t.Any], *sensitive: str, title: str | None = None):
        self.run = fun
        self.sensitive = sensitive
        self.title = title


def test_sensitive_by_position_and_name() -> None:
    def log_in(user: str, password: str, *rest: str, token: str = "", **more: str) -> None: ...

    task = Task(log_in, "password", "token", "rest")
    shown = arguments(task, ["ada", "hunter2", "x-secret", "y-secret"], {"token": "t0ken", "z": 1})
    assert shown.args == '["ada", "•••", "•••", "•••"]'
    assert shown.kwargs == '{"token": "•••", "z": 1}'
    assert shown.args_repr == "('ada', '•••', '•••', '•••')"
    assert shown.masked
    assert shown.secrets == ["hunter2", "x-secret", "y-secret", "t0ken"]


def test_secrets_inside_of_structures() -> None:
    def pay(card: dict[str, t.Any]) -> None: ...

    shown = arguments(Task(pay, "card"), [], {"card": {"number": 4242424242, "owner": ["Ada"]}})
    assert shown.secrets == ["4242424242", "Ada"]
    assert "4242" not in shown.kwargs


def test_long_arguments_are_shortened() -> None:
    shown = arguments(None, ["x" * 1000, list(range(1000)), 1, None, {"a": 1}], {})
    assert len(shown.args) < 600
    assert shown.args.endswith('1, null, {"a": 1}]')


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, "Build report"),
        ("Monthly report", "Monthly report"),
        ("Report for {month}", "Report for May"),
        ("{month} in {style}", "May in plain"),
        ("{nobody}", "{nobody}"),
        ("{month.__class__}", "{month.__class__}"),
        ("{unclosed", "{unclosed"),
        ("{month!r:>8}", "   'May'"),
        ("{}", "{}"),
    ],
)
def test_title(template: str | None, expected: str) -> None:
    def build_report(month: str, style: str = "plain") -> None: ...

    task = Task(build_report, title=template)
    assert title(task, "app.build_report", arguments(task, ["May"], {})) == expected


def test_title_does_not_tell_a_secret() -> None:
    def mail(to: str) -> None: ...

    task = Task(mail, "to", title="Mail to {to}")
    assert title(task, "app.mail", arguments(task, ["ada@example.org"], {})) == "Mail to •••"


def test_title_has_a_bound() -> None:
    def work(text: str) -> None: ...

    task = Task(work, title="{text}")
    assert len(title(task, "work", arguments(task, ["x" * 10_000], {}))) == 120
