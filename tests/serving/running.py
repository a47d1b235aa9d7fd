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

from palate.serving.app import make_app
from palate.serving.auth import Tokens
from palate.serving.guard import Guard
from palate.serving.logs import make_log
from palate.serving.served import Limits
from palate.serving.service import Service


@contextmanager
def running(
    folders: Sequence[Path], store: Path, *, tokens: Tokens | None = None, limits: Limits | None = None
) -> Iterator[tuple[Service, str]]:
    """The service and its address; the lines of its log are in ``service.written``."""
    written = io.StringIO()
    service = Service(folders, store, limits=limits, log=make_log(written))
    service.written = written  # type: ignore[attr-defined]
    app = Guard(
        make_app(service, tokens or Tokens()), metrics=service.metrics, log=service.log, local_only=True
    )  # fmt: skip
    config = uvicorn.Config(app, log_config=None, access_log=False, http="h11", ws="none", lifespan="on")
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(config)
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
