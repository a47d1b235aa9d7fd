"""The same questions as tools of an assistant: an MCP server over the standard streams, or at /mcp of the HTTP server.

Answers are those of the HTTP API. Writing is offered only where it was allowed; at /mcp with tokens only to those that
may write.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ToolAnnotations
from pydantic import Field, ValidationError
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

import palate
from palate.core.errors import PalateError
from palate.filters import parse_filter
from palate.questions import Answer, Question
from palate.serving import schemas
from palate.serving.auth import Tokens
from palate.serving.catalogue import FoundItems
from palate.serving.ledger import Written
from palate.serving.schemas import (
    MOST_EVENTS,
    MOST_EXPLAINED,
    EventBody,
    Explain,
    FilterBody,
    Id,
    Name,
    Recommend,
    Short,
    Similar,
)  # fmt: skip
from palate.serving.served import RunCard
from palate.serving.service import Service
from palate.serving.waiting import in_time

PATH = "/mcp"
ABOUT = """Recommenders fitted on one catalogue. Call runs first to see which runs there are and what they read. Ask
recommend either by user or by history; titles work wherever ids do. Name titles to people, never scores."""
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
WRITES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)

Run = Annotated[Name | None, Field(description="Which run answers; may be left out where only one is served")]
User = Annotated[Id | None, Field(description="A user of the data; say this or a history")]
History = Annotated[
    list[Name] | None,
    Field(max_length=MOST_EVENTS, description="Ids or exact titles somebody met, oldest first; empty is a newcomer"),
]
Count = Annotated[int, Field(ge=1, le=50, description="How many items")]
Words = Annotated[schemas.Words, Field(description="What is wished, for runs that read words")]
Filters = Annotated[
    list[Name] | None,
    Field(max_length=20, description="Only items that pass all: category=mystery,fantasy or year=1900..1950"),
]
Titles = Annotated[list[Name] | None, Field(max_length=MOST_EVENTS, description="Ids or exact titles")]


def make_tools(service: Service, *, writes: bool) -> MCPServer:
    """The server with its tools; ``writes`` adds the one that writes events."""
    server = MCPServer("palate", title="Palate", instructions=ABOUT, version=palate.__version__, log_level="WARNING")
    _add_asking(server, service)
    _add_looking(server, service)
    if writes:
        _add_telling(server, service)
    return server


def _add_asking(server: MCPServer, service: Service) -> None:
    seconds = service.limits.seconds

    @server.tool(annotations=READS, structured_output=True)
    async def recommend(
        user: User = None, history: History = None, k: Count = 10, words: Words = "", filters: Filters = None,
        leave_out: Titles = None, candidates: Titles = None, why: bool = False, run: Run = None,
    ) -> Answer:  # fmt: skip
        """The best k items for a user or for somebody with a history, best first, with titles. With why also the
        events that moved each score most; explain tells of texts."""
        with _said_plainly():
            asked = Recommend(
                run=run, user=user, history=history, k=k, words=words, leave_out=leave_out or [], why=why,
                candidates=candidates, filters=_bodies(filters),
            )  # fmt: skip
            putting = service.ask(run, lambda served: served.recommend([asked.question()], k, why=why))
            (answer,) = await in_time(putting, seconds)
            return answer

    @server.tool(annotations=READS, structured_output=True)
    async def similar(
        item: Annotated[Name, Field(description="An id or an exact title")], k: Count = 10, run: Run = None
    ) -> Answer:
        """Items like one: what somebody would get who met it and nothing else."""
        with _said_plainly():
            asked = Similar(run=run, item=item, k=k)
            question = Question(history=[asked.item])
            (answer,) = await in_time(service.ask(run, lambda served: served.recommend([question], k)), seconds)
            return answer

    @server.tool(annotations=READS, structured_output=True)
    async def explain(
        items: Annotated[
            list[Name], Field(min_length=1, max_length=MOST_EXPLAINED, description="Ids or exact titles")
        ],
        user: User = None, history: History = None, words: Words = "", run: Run = None,
    ) -> Answer:  # fmt: skip
        """The score of given items for a user or a history, and which events and parts of the item's text moved it:
        each drop is the score less the score with that event, or that part, taken out."""
        with _said_plainly():
            asked = Explain(run=run, items=items, user=user, history=history, words=words)
            putting = service.ask(run, lambda served: served.explain(asked.question(), items))
            (answer,) = await in_time(putting, seconds)
            return answer


def _add_looking(server: MCPServer, service: Service) -> None:
    @server.tool(annotations=READS, structured_output=True)
    async def search_items(
        said: Annotated[str, Field(max_length=200, description="Words that all occur in the item")] = "",
        filters: Filters = None, limit: Count = 10, run: Run = None,
    ) -> FoundItems:  # fmt: skip
        """Items of the catalogue by words of their titles and texts, those with the words in the title first."""
        with _said_plainly():
            catalogue, passing = service.find(run).catalogue, [body.filter() for body in _bodies(filters)]
            return await service.aside(lambda: catalogue.search(said, passing, 0, limit))

    @server.tool(annotations=READS, structured_output=True)
    async def runs() -> list[RunCard]:
        """The runs that answer here: what each is, what it reads, and its measured figures with intervals."""
        return service.cards()


def _add_telling(server: MCPServer, service: Service) -> None:
    @server.tool(annotations=WRITES, structured_output=True)
    async def add_event(
        user: Id, item: Annotated[Id, Field(description="An id of the catalogue")],
        key: Annotated[Id | None, Field(description="Your name of this event: the same key is written once")] = None,
        rating: float | None = None, kind: Short | None = None, run: Run = None,
    ) -> Written:  # fmt: skip
        """Write down that a user met an item; the next answer for this user reads it."""
        with _said_plainly():
            event = EventBody(key=key or f"mcp-{secrets.token_hex(16)}", user=user, item=item, rating=rating, kind=kind)
            (written,) = await in_time(service.append(run, [event.event()]), service.limits.seconds)
            return written[0]


def _bodies(filters: list[str] | None) -> list[FilterBody]:
    read = [parse_filter(text) for text in filters or ()]
    return [
        FilterBody(column=one.column, any_of=list(one.any_of) or None, least=one.least, most=one.most) for one in read
    ]


@contextmanager
def _said_plainly() -> Iterator[None]:
    """What is wrong with a call as one sentence, which the assistant reads."""
    try:
        yield
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        said = str(first["msg"]).removeprefix("Value error, ")
        raise ToolError(f"'{where}': {said}" if where else said) from None
    except PalateError as problem:
        raise ToolError(str(problem)) from None


# -- over HTTP -------------------------------------------------------------------------------------------------------


class ToolsDoor:
    """What answers at /mcp. Host, origin, size and time of a request were looked at by the guard before."""

    def __init__(self, service: Service, tokens: Tokens, *, writes: bool) -> None:
        self._tokens = tokens
        self._reading = _over_http(service, writes=writes and not tokens)
        self._writing = _over_http(service, writes=True) if writes and tokens else self._reading

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Answers while inside."""
        async with AsyncExitStack() as stack:
            for app in {id(one): one for one in (self._reading, self._writing)}.values():
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp = self._reading
        if scope["method"] != "POST":
            # A GET would open a stream that nothing is ever said on, and hold one of the server's connections for good.
            said = {"error": "tools are called with POST; nothing is streamed here", "code": "http"}
            app = JSONResponse(said, 405, {"Allow": "POST"})
        elif self._tokens:
            given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            kind, _, token = given.partition(" ")
            found = self._tokens.scope_of(token.strip()) if kind.lower() == "bearer" else None
            if found is None:
                said = {"error": "this needs a token: send Authorization: Bearer TOKEN", "code": "denied"}
                app = JSONResponse(said, 401, {"WWW-Authenticate": "Bearer"})
            elif found == "write":
                app = self._writing
        await app(scope, receive, send)


def _over_http(service: Service, *, writes: bool) -> Any:
    """Without sessions: each request stands alone, so that nothing is kept of those who went."""
    return make_tools(service, writes=writes).streamable_http_app(
        streamable_http_path=PATH, json_response=True, stateless_http=True,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )  # fmt: skip
