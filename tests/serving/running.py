"""A server in a thread of the test, so that a test can reach behind the door."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from palate.serving.auth import Tokens
from palate.serving.logs import make_log
from palate.serving.served import Limits
from palate.serving.server import configuration
from palate.serving.service import Service


@contextmanager
def running(
    folders: Sequence[Path], store: Path | str, *, tokens: Tokens | None = None, limits: Limits | None = None,
    tools: bool = False,
) -> Iterator[tuple[Service, str]]:  # fmt: skip
    """The service and its address; the lines of its log are in ``service.written``, uvicorn in ``service.server``.

    With ``tools`` it answers at /mcp too, and lets those write who may.
    """
    written = io.StringIO()
    service = Service(folders, store, limits=limits, log=make_log(written))
    service.written = written  # type: ignore[attr-defined]
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    door = None
    if tools:
        from palate.serving.tools import ToolsDoor

        door = ToolsDoor(service, tokens or Tokens(), writes=True)
    server = uvicorn.Server(configuration(service, tokens or Tokens(), local_only=True, tools=door))
    service.server = server  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield service, f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
