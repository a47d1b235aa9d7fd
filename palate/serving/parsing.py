"""HTTP as llhttp parses it, with the bounds that its wrapper lacks: nobody makes the server hold an endless head, wait
for one that never ends, or take a body for a request."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from palate.serving.guard import FULL, WHOLE

CONNECTIONS = 512
"""A request over a further one is refused and the connection closed; of twice as many none is heard at all."""
HEAD_BYTES = 16 * 1024
"""Request line and headers together, and whatever else arrives without ending a head or being part of a body, such as
trailers and extensions of chunks."""
HEAD_SECONDS = 10.0
"""A connection that has sent no whole head by then, counted from its beginning or from the last answer, is closed."""


class BoundedHttp(HttpToolsProtocol):
    """Answers 400 to a longer head, whether it comes at once or a letter at a time, and lets go of who sends none."""

    _unfinished = 0
    _late: asyncio.TimerHandle | None = None
    _why = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()
        if len(self.connections) > 2 * CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unfinished += len(data)
        super().data_received(data)
        if self._unfinished > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"A head has at most {HEAD_BYTES:,} bytes.")

    def on_headers_complete(self) -> None:
        self._unfinished = 0
        self._head_came()
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES:
            raise ValueError("too long a head")  # the parser stops, and 400 is answered
        changing = self.parser.should_upgrade()
        # The parser would take the body for the first words of another protocol, and what is left of it for a request.
        if changing and (self.parser.get_method() == b"CONNECT" or self._has_body()):
            self._why = "This server speaks HTTP/1.1 alone; send no Upgrade with a body."
            raise ValueError(self._why)
        if len(self.connections) > CONNECTIONS:
            self.scope["extensions"] = {FULL: {}}
        super().on_headers_complete()
        if changing:  # answered as if nothing had been offered; what follows may be in any protocol
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._unfinished = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unfinished = 0
        self.scope["extensions"] = {**self.scope.get("extensions", {}), WHOLE: {}}
        super().on_message_complete()

    def on_response_complete(self) -> None:
        next_came = bool(self.pipeline)
        super().on_response_complete()
        if not next_came and not self.transport.is_closing():
            self._expect_head()

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(self._why or msg)

    def _has_body(self) -> bool:
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
            for name, value in self.headers
        )

    def _expect_head(self) -> None:
        self._head_came()
        self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _head_came(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
