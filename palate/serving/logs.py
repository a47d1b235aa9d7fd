"""One line of JSON for everything that happens in a server. No body, no token and no user id is ever written."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog

_ENCODER = json.JSONEncoder(default=repr)


class Lines:
    """Writes lines at once, those of ``together`` with one write. What a full disk does not take is lost, and counted
    in a line of its own once there is room: a server answers all the same."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._held: list[str] | None = None
        self._alone = threading.Lock()
        self._lost = 0

    def msg(self, line: str) -> None:
        with self._alone:
            if self._held is None:
                self._write(line)
            else:
                self._held.append(line)

    debug = info = warning = error = critical = msg

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold back what is said meanwhile, by whichever thread, and write it when the outermost one ends."""
        with self._alone:
            outermost = self._held is None
            if outermost:
                self._held = []
        try:
            yield
        finally:
            if outermost:
                with self._alone:
                    held, self._held = self._held, None
                    if held:
                        self._write("\n".join(held))

    def _write(self, text: str) -> None:
        lost = f"{_line(None, 'error', {'event': 'log-lost', 'lines': self._lost})}\n" if self._lost else ""
        try:
            self._stream.write(f"{lost}{text}\n")
            self._stream.flush()
        except OSError:
            self._lost += 1 + text.count("\n")
        else:
            self._lost = 0


class Log(structlog.BoundLoggerBase):
    """``log.info("event", key=value)``, and so on for the other levels; what is below ``info`` is left out."""

    def debug(self, event: str, **values: Any) -> None:
        pass

    def info(self, event: str, **values: Any) -> None:
        self._proxy_to_logger("info", event, **values)

    def warning(self, event: str, **values: Any) -> None:
        self._proxy_to_logger("warning", event, **values)

    def error(self, event: str, **values: Any) -> None:
        self._proxy_to_logger("error", event, **values)

    def critical(self, event: str, **values: Any) -> None:
        self._proxy_to_logger("critical", event, **values)

    def exception(self, event: str, **values: Any) -> None:
        """An error, with the exception that is handled now."""
        self._proxy_to_logger("error", event, exc_info=True, **values)

    def together(self) -> AbstractContextManager[None]:
        """What is said meanwhile is written with one write."""
        return self._logger.together()


def make_log(stream: TextIO | None = None) -> Log:
    """A logger of its own; nothing of the process's logging is changed."""
    return Log(Lines(stream or sys.stderr), [_line], {})


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
        levels = {logging.ERROR: self._log.error, logging.CRITICAL: self._log.critical}
        say = levels.get(record.levelno, self._log.warning)
        say("library", logger=record.name, said=record.getMessage())
