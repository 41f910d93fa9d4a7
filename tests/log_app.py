"""The sample app with logging of its user's: ``celery -A log_app.celery worker``."""

from __future__ import annotations

import json
import logging
import os
import typing as t
from pathlib import Path

from celery import signals
from celery.app.log import Logging
from celery.utils.log import get_task_logger

from flask_offload._celery.stdout import LineLogging
from sample import create_app

log = get_task_logger("tests.tasks")

app = create_app()
celery = app.extensions["offload"].celery
celery.conf.update(json.loads(os.environ.get("LOG_CONF", "{}")))


@celery.task(name="log.speak")
def speak(word: str) -> str:
    log.info("speaking %s", word)
    return word


class Ledger(logging.Handler):
    """A user's handler: the data of Celery's records, in a file."""

    def emit(self, record: logging.LogRecord) -> None:
        data = getattr(record, "data", None)
        if data is not None:
            line = {"message": record.getMessage(), "func": record.funcName, "data": data}
            with Path(os.environ["LOG_LEDGER"]).open("a") as file:
                file.write(json.dumps(line) + "\n")


if "LOG_LEDGER" in os.environ:

    @signals.after_setup_logger.connect(weak=False)
    def add_ledger(logger: logging.Logger, **_: t.Any) -> None:
        logger.addHandler(Ledger())


if "LOG_STOCK" in os.environ:
    # Celery's own handlers, to compare with.
    del LineLogging._detect_handler
    assert LineLogging._detect_handler is Logging._detect_handler
