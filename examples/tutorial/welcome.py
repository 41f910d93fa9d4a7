"""The welcome e-mail, over SMTP."""

from __future__ import annotations

import smtplib

from flask import render_template
from flask_mailman import EmailMessage

from flask_offload import UserError


class NotNow(UserError):
    """The mail server may take it in a moment."""


def send(name: str, email: str, message_id: str) -> None:
    """Send the welcome e-mail.

    :raises NotNow: It was not sent, and another try makes sense.
    :raises UserError: The mail server does not take this address.
    """
    mail = EmailMessage(
        subject="Welcome",
        body=render_template("welcome.txt", name=name),
        to=[email],
        headers={"Message-ID": message_id},
    )
    try:
        mail.send()
    except smtplib.SMTPRecipientsRefused as error:
        code = max(code for code, _ in error.recipients.values())
        raise _refused(code) from error
    except smtplib.SMTPResponseException as error:
        raise _refused(error.smtp_code) from error
    except OSError as error:  # no connection, or it broke
        raise NotNow("The mail server cannot be reached.") from error


def _refused(code: int) -> UserError:
    if code >= 500:
        return UserError("The mail server does not take this mail.")
    return NotNow("The mail server does not take mail at the moment.")
