"""Many clients of one server in a process of their own: ``python -m benchmarks.serving_clients FILE``.

FILE is JSON: host, port, seconds, clients and the bodies that they ask in turn, each client over a connection that
stays. Printed is JSON: how many were answered, how many not, and the seconds of every answer. Nothing but the standard
library, so that the clients cost little beside the server.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any


class Load:
    """``seconds``: what each answer took. ``errors``: answers that are not 200, and connections that broke."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan, self._next = plan, count()
        head = "POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
        self._requests = [f"{head}{len(body)}\r\n\r\n{body}".encode() for body in plan["bodies"]]
        self.seconds: list[float] = []
        self.errors = 0

    async def run(self) -> None:
        until = time.monotonic() + self._plan["seconds"]
        await asyncio.gather(*(self._client(until) for _ in range(self._plan["clients"])))

    async def _client(self, until: float) -> None:
        while time.monotonic() < until:
            try:
                reader, writer = await asyncio.open_connection(self._plan["host"], self._plan["port"])
                while time.monotonic() < until:
                    await self._ask(reader, writer)
                writer.close()
            except (OSError, asyncio.IncompleteReadError):
                self.errors += 1

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun = time.perf_counter()
        writer.write(self._requests[next(self._next) % len(self._requests)])
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.split(b"content-length:")[1].split(b"\r\n")[0]
        await reader.readexactly(int(length))
        self.seconds.append(time.perf_counter() - begun)
        self.errors += not head.startswith(b"http/1.1 200")


if __name__ == "__main__":
    load = Load(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    asyncio.run(load.run())
    print(json.dumps({"seconds": load.seconds, "errors": load.errors}))
