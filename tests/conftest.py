"""What every test may rely on: nothing is written to the user's own cache, and nobody outside is asked anything."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Vectors, taught language models and downloads of the session lie in a folder of its own."""
    before = os.environ.get("PALATE_CACHE")
    os.environ["PALATE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["PALATE_CACHE"]
    else:
        os.environ["PALATE_CACHE"] = before


class ReachedOutError(Exception):
    """A test asked for another machine. No ``OSError``, so that nothing which minds a bad network swallows it."""


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Sockets of this process lead to this machine alone; names of others are not looked up."""

    def held(once: Any) -> Any:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family != getattr(socket, "AF_UNIX", None) and not _is_here(address[0]):
                raise ReachedOutError(f"a test wants to reach {address}")
            return once(self, address)

        return connect

    def look_up(host: Any, *more: Any, **named: Any) -> Any:
        if not _is_here(host):
            raise ReachedOutError(f"a test wants the address of {host}")
        return found(host, *more, **named)

    found = socket.getaddrinfo
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", held(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", held(socket.socket.connect_ex))
        patch.setattr(socket, "getaddrinfo", look_up)
        yield


def _is_here(host: Any) -> bool:
    said = host.decode() if isinstance(host, bytes) else host
    if said in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        at = ipaddress.ip_address(said)
    except ValueError:
        return False
    return at.is_loopback or at.is_unspecified
