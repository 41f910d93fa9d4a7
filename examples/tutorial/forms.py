"""The three forms. Each error says what to enter, not what was wrong with it."""

from __future__ import annotations

from datetime import date
from typing import Any

from flask_wtf import FlaskForm
from wtforms import EmailField, Field, IntegerField, MonthField, StringField
from wtforms.validators import DataRequired, Email, Length, NumberRange, Regexp, ValidationError

FIRST_MONTH = date(2020, 1, 1)
MAX_PAGES = 50


def stripped(text: str | None) -> str:
    return (text or "").strip()


class SignupForm(FlaskForm):
    name = StringField(
        "Name",
        filters=[stripped],
        validators=[
            DataRequired("Enter your name."),
            Length(max=80, message="Enter a name of at most 80 characters."),
            Regexp(r"[^\x00-\x1f\x7f]*\Z", message="Enter a name without control characters."),
        ],
        render_kw={"autocomplete": "name"},
    )
    email = EmailField(
        "E-mail",
        filters=[stripped],
        validators=[
            DataRequired("Enter an e-mail address, like ada@example.org."),
            Email("Enter an e-mail address, like ada@example.org.", allow_smtputf8=False),
        ],
        render_kw={"autocomplete": "email"},
    )


class ReportForm(FlaskForm):
    month = MonthField(
        "Month",
        description="Year and month, like 2026-10.",
        default=date.today,
        validators=[DataRequired("Enter a year and a month, like 2026-10.")],
    )
    size = IntegerField(
        "Pages",
        description=f"From 1 to {MAX_PAGES}.",
        default=12,
        validators=[
            DataRequired(f"Enter a number of pages from 1 to {MAX_PAGES}."),
            NumberRange(1, MAX_PAGES, f"Enter a number of pages from 1 to {MAX_PAGES}."),
        ],
        render_kw={"inputmode": "numeric"},
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.month.render_kw = {"min": f"{FIRST_MONTH:%Y-%m}", "max": f"{date.today():%Y-%m}"}

    def validate_month(self, field: Field) -> None:
        if not FIRST_MONTH <= field.data <= date.today():
            raise ValidationError(
                f"Enter a month from {FIRST_MONTH:%Y-%m} to {date.today():%Y-%m}."
            )


class QuoteForm(FlaskForm):
    symbol = StringField(
        "Share",
        description="ACME, INIT or UMBR. The exchange knows no others.",
        filters=[stripped, str.upper],
        validators=[
            DataRequired("Enter the symbol of a share, like ACME."),
            Regexp(r"[A-Z]{1,8}\Z", message="Enter up to 8 letters, like ACME."),
        ],
        render_kw={"autocapitalize": "characters", "autocomplete": "off", "spellcheck": "false"},
    )
