"""HTTP as llhttp parses it, with the bound that its wrapper lacks: nobody makes the server hold an endless head."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 16 * 1024
"""Request line and headers together, and whatever else arrives without ending a head or being part of a body, such as
trailers and extensions of chunks."""


class BoundedHttp(HttpToolsProtocol):
    """Answers 400 to a longer head, whether it comes at once or a letter at a time."""

    _unfinished = 0

    def data_received(self, data: bytes) -> None:
        self._unfinished += len(data)
        super().data_received(data)
        if self._unfinished > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"A head has at most {HEAD_BYTES:,} bytes.")

    def on_headers_complete(self) -> None:
        self._unfinished = 0
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES:
            raise ValueError("too long a head")  # the parser stops, and 400 is answered
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unfinished = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unfinished = 0
        super().on_message_complete()
