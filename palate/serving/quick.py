"""A short way for the questions that are asked most: checked from the bytes, and past the framework's machinery.

Only what is in order goes this way. Whatever is not, be it a field, a token or a header, is handed on to the framework
as it came, so that there is one place that refuses and one wording. The framework also describes these routes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.responses import Response

from palate.core.errors import PalateError
from palate.serving.auth import Tokens
from palate.serving.guard import App, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Route:
    """``path`` is what the figures of the server call it."""

    path: str
    body: TypeAdapter[Any]
    answer: Callable[[Any], Awaitable[bytes]]
    """As JSON."""


class Quick:
    """``routes`` are those that anybody may ask who may read; ``say`` words an error."""

    def __init__(
        self, app: App, routes: Mapping[str, tuple[type[BaseModel], Callable[[Any], Awaitable[bytes]]]],
        tokens: Tokens, say: Callable[[PalateError], Response],
    ) -> None:  # fmt: skip
        self._app, self._tokens, self._say = app, tokens, say
        self._routes = {path: Route(path, TypeAdapter(body), answer) for path, (body, answer) in routes.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope.get("path", "")) if scope.get("method") == "POST" else None
        if route is None or not self._in_order(dict(scope["headers"])):
            await self._app(scope, receive, send)
            return
        message = await receive()  # the guard has read the whole body
        try:
            asked = route.body.validate_json(message.get("body", b""))
        except ValidationError:
            await self._app(scope, _before(message, receive), send)
            return
        scope["route"] = route
        try:
            body = await route.answer(asked)
        except PalateError as problem:
            await self._say(problem)(scope, receive, send)
            return
        length = str(len(body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _in_order(self, headers: Mapping[bytes, bytes]) -> bool:
        if headers.get(b"content-type") != b"application/json":
            return False
        if not self._tokens:
            return True
        kind, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        return kind.lower() == "bearer" and self._tokens.scope_of(token.strip()) is not None


def _before(message: Message, receive: Receive) -> Receive:
    """``message`` once more, then what comes."""
    waiting = [message]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
