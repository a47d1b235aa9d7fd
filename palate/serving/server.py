"""A ``Service`` on a port: uvicorn with bounded connections, signals, and a graceful end."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from palate.core.errors import ConfigError
from palate.serving.app import make_door
from palate.serving.auth import Tokens, check_address, is_loopback
from palate.serving.logs import Forward
from palate.serving.parsing import CONNECTIONS, BoundedHttp
from palate.serving.service import Service

if TYPE_CHECKING:
    from palate.serving.tools import ToolsDoor

GRACE_SECONDS = 30
"""Requests under way may take so long to end once the server is told to stop."""


@dataclass(frozen=True)
class Address:
    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes a free one."""


def serve(
    service: Service, address: Address, tokens: Tokens, ready: Callable[[str], None], tools: ToolsDoor | None = None
) -> None:
    """Answer until SIGTERM or SIGINT; SIGHUP looks for new runs. ``ready`` is told the address once it is bound;
    ``tools`` answer at /mcp.

    Raises ``MisuseError`` for an address that others reach without a token, ``ConfigError`` where the port is taken.
    """
    check_address(address.host, tokens)
    listening = _bind(address)
    log = logging.getLogger("uvicorn.error")
    forward = Forward(service.log)
    log.addHandler(forward)
    # uvicorn gives the signal on once it has ended well; this process then ends well too.
    before = {name: signal.signal(name, lambda *_: None) for name in (signal.SIGTERM, signal.SIGINT)}
    if hasattr(signal, "SIGHUP"):
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: service.look_soon())
    try:
        ready(_said(listening))
        service.log.info("serving", address=_said(listening), runs=[card.name for card in service.cards()])
        local_only = is_loopback(address.host)
        uvicorn.Server(configuration(service, tokens, local_only=local_only, tools=tools)).run(sockets=[listening])
        service.log.info("stopped")
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
        log.removeHandler(forward)
        listening.close()


def configuration(
    service: Service, tokens: Tokens, *, local_only: bool, tools: ToolsDoor | None = None
) -> uvicorn.Config:
    """The guarded app, with connections, headers and the end bounded."""
    door = make_door(service, tokens, tools, local_only=local_only)
    return uvicorn.Config(
        door, log_config=None, access_log=False, server_header=False, proxy_headers=False, http=BoundedHttp,
        ws="none", lifespan="on", timeout_graceful_shutdown=GRACE_SECONDS,
    )  # fmt: skip


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address.host, address.port))
        listening.listen(CONNECTIONS)  # who connects from now on waits for the first answer and is not refused
    except OSError as failure:
        listening.close()
        raise ConfigError(
            f"cannot listen on {address.host} port {address.port}: {failure.strerror or failure}; choose another --port"
        ) from None
    return listening


def _said(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
