"""One line of JSON for everything that happens in a server. No body, no token and no user id is ever written."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog

_ENCODER = json.JSONEncoder(default=repr)


class Lines:
    """Writes lines at once, those of ``together`` with one write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._held: list[str] | None = None
        self._alone = threading.Lock()

    def msg(self, line: str) -> None:
        with self._alone:
            if self._held is None:
                self._write(line)
            else:
                self._held.append(line)

    debug = info = warning = error = critical = msg

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold back what is said meanwhile, by whichever thread, and write it at the end."""
        with self._alone:
            self._held = []
        try:
            yield
        finally:
            with self._alone:
                held, self._held = self._held, None
                if held:
                    self._write("\n".join(held))

    def _write(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class Log(structlog.make_filtering_bound_logger(logging.INFO)):  # type: ignore[misc]  # made by a function
    """``log.info("event", key=value)``, and so on for the other levels."""

    together = property(lambda self: self._logger.together)


def make_log(stream: TextIO | None = None) -> Log:
    """A logger of its own; nothing of the process's logging is changed."""
    log: Log = structlog.wrap_logger(Lines(stream or sys.stderr), processors=[_line], wrapper_class=Log).bind()
    return log  # bound here once, else it would be for every line


def _line(_: object, level: str, event: MutableMapping[str, Any]) -> str:
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(None, level, event)
    now = datetime.now(UTC).replace(tzinfo=None).isoformat()
    return _ENCODER.encode({**event, "level": level, "timestamp": f"{now}Z"})


class Forward(logging.Handler):
    """Lines of a library that logs in its own way, as lines of ours."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.log(record.levelno, "library", logger=record.name, said=record.getMessage())
