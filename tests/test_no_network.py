"""The fence around tests holds: other machines are not reached, this one is."""

from __future__ import annotations

import socket

import pytest


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("example.org", 80)])
def test_another_machine_is_not_reached(address: tuple[str, int]) -> None:
    with socket.socket() as one, pytest.raises(Exception, match="a test wants"):
        one.connect(address)
    with pytest.raises(Exception, match="a test wants"):
        socket.create_connection(address, timeout=1)


def test_this_machine_is_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as one:
        one.sendall(b"hello")
        assert server.accept()[0].recv(5) == b"hello"
