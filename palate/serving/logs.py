"""One line of JSON for everything that happens in a server. No body, no token and no user id is ever written."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog

Log = Any
"""A structlog logger: ``log.info("event", key=value)``."""


def make_log(stream: TextIO | None = None) -> Log:
    """A logger of its own; nothing of the process's logging is changed."""
    return structlog.wrap_logger(
        structlog.WriteLogger(stream or sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


class Forward(logging.Handler):
    """Lines of a library that logs in its own way, as lines of ours."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.log(record.levelno, "library", logger=record.name, said=record.getMessage())
