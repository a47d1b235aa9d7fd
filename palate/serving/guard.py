"""What stands before every route: host, size and time of a request, safe headers, one log line, one figure.

Plain ASGI. The whole body is read here, so a route never sees one that is too large or never ends.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from itertools import count
from typing import Any, NamedTuple

from palate.serving.auth import is_loopback
from palate.serving.logs import Log
from palate.serving.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_BYTES = 1 << 20
DRAINED_BYTES = 8 * BODY_BYTES
"""Of a body that is too large so much is still read and dropped, so that its sender hears why it was refused."""
BODY_SECONDS = 10.0
"""A body that has not arrived by then is refused."""

WHOLE = "palate.whole"
"""An extension of a scope: the whole body had arrived before the request was looked at."""
FULL = "palate.full"
"""An extension of a scope: the request came over one connection too many."""

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
"""Of every answer that does not say otherwise itself."""
_OWN = frozenset(name for name, _ in HEADERS)
LOCAL_NAMES = {b"localhost", b"127.0.0.1", b"[::1]"}
"""The usual ones; numbers of this machine alone are local, too, and no page can make one up."""
ONCE = (b"host", b"authorization", b"content-type")
"""Two readers of a request could each believe another one of these."""
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RefusedError(Exception):
    """A request that never reaches a route."""

    def __init__(self, status: int, code: str, error: str) -> None:
        super().__init__(error)
        self.status, self.code, self.error = status, code, error


class Ended(NamedTuple):
    """A request that was answered."""

    request: str
    method: str
    route: str
    status: int
    seconds: float


class Guard:
    """``local_only`` refuses names of this machine that a web page may have made up (DNS rebinding)."""

    def __init__(self, app: App, *, metrics: Metrics, log: Log, local_only: bool) -> None:
        self._app, self._metrics, self._log, self._local_only = app, metrics, log, local_only
        # Counted, not drawn: asking the system for chance lets go of the interpreter, which a busy desk then holds.
        self._names, self._numbers = secrets.token_hex(4), count(1)
        self._ended: list[Ended] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        headers: dict[bytes, bytes] = dict(scope["headers"])  # in small letters, as ASGI has it
        asked = headers.get(b"x-request-id", b"")
        name = asked.decode() if _ID.fullmatch(asked) else f"{self._names}-{next(self._numbers)}"

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {key for key, _ in message["headers"]}
                own = HEADERS if _OWN.isdisjoint(given) else [one for one in HEADERS if one[0] not in given]
                message = {**message, "headers": [*message["headers"], *own, (b"x-request-id", name.encode())]}
            await send(message)

        try:
            if FULL in scope.get("extensions", ()):
                raise RefusedError(429, "busy", "this server has too many connections open; come back later")
            if len(headers) < len(scope["headers"]):
                _check_repeated([key for key, _ in scope["headers"]])
            host = headers.get(b"host", b"").lower()
            if self._local_only:
                _check_host(host)
            _check_page(headers, host)
            await self._app(scope, _replay(await _body(scope, headers, receive), receive), answer)
        except RefusedError as refused:
            await _problem(answer, refused)
        except Exception:
            self._log.exception("bug", request=name)
            if not status:
                await _problem(answer, RefusedError(500, "bug", f"this is a bug; the server's log has it as {name}"))
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if route != "unmatched" else "any"
            self._note(Ended(name, method, route, status, time.perf_counter() - started))

    def _note(self, ended: Ended) -> None:
        """Requests that end together, as those of a batch do, are counted and written down together."""
        if not self._ended:
            asyncio.get_running_loop().call_soon(self._write_down)
        self._ended.append(ended)

    def _write_down(self) -> None:
        ended, self._ended = self._ended, []
        with self._log.together():
            for request, method, route, status, seconds in ended:
                self._metrics.answered(route, method, status, seconds)
                ms = round(1000 * seconds, 2)
                self._log.info("request", request=request, method=method, route=route, status=status, ms=ms)


def _check_repeated(names: list[bytes]) -> None:
    for name in ONCE:
        if names.count(name) > 1:
            raise RefusedError(400, "repeated", f"send the header {name.decode().title()} once")


def _check_host(host: bytes) -> None:
    name = host.rsplit(b":", 1)[0] if not host.endswith(b"]") else host
    if name not in LOCAL_NAMES and not is_loopback(name.strip(b"[]").decode("latin-1")):
        raise RefusedError(421, "host", "this server answers to localhost only")


def _check_page(headers: dict[bytes, bytes], host: bytes) -> None:
    """A browser says which page asks; pages of other servers have no business here, but may link here.

    A picture or a script of another page is fetched without ``Origin``: there ``Sec-Fetch-Site`` tells.
    """
    origin = headers.get(b"origin")
    foreign = origin is not None and origin.partition(b"://")[2].lower() != host
    elsewhere = headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site")
    if foreign or (elsewhere and headers.get(b"sec-fetch-mode") != b"navigate"):
        raise RefusedError(403, "origin", "a page of another server may not ask this one")


async def _body(scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> bytes:
    """The whole body. Raises ``RefusedError`` for one that is too large or too slow."""
    if WHOLE in scope.get("extensions", ()):  # no clock is needed
        return await _read(headers, receive)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read(headers, receive)
    except TimeoutError:
        raise RefusedError(408, "slow", f"the request did not arrive within {BODY_SECONDS:g} s") from None


async def _read(headers: dict[bytes, bytes], receive: Receive) -> bytes:
    said = headers.get(b"content-length", b"0")
    too_large = not said.isdigit() or int(said[:20]) > BODY_BYTES
    parts: list[bytes] = []
    size, more = 0, True
    while more and size <= DRAINED_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "gone", "the connection was closed before the request was whole")
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
        too_large |= size > BODY_BYTES
        if not too_large:
            parts.append(message.get("body", b""))
    if too_large:
        raise RefusedError(413, "too-large", f"a request has at most {BODY_BYTES:,} bytes; send less at once")
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body once, then what the connection says."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _problem(send: Send, refused: RefusedError) -> None:
    body = json.dumps({"error": refused.error, "code": refused.code}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status in (408, 413, 429):
        headers.append((b"connection", b"close"))
    if refused.status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
