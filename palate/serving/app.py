"""The HTTP API: thin routes over a ``Service``. Every error is one sentence and a word for programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, TypeAdapter
from starlette.exceptions import HTTPException
from starlette.routing import Route

import palate
from palate.core.errors import (
    ConfigError,
    DataError,
    EndpointError,
    LeakError,
    MisuseError,
    PalateError,
    StoreError,
    UnknownIdError,
)
from palate.questions import Answer, Question
from palate.serving.auth import Scope, Tokens
from palate.serving.batching import BusyError, ClosedError
from palate.serving.browsing import add_browsing
from palate.serving.guard import Guard
from palate.serving.ledger import ConflictError, Written
from palate.serving.pages import add_pages, read_built
from palate.serving.quick import Quick
from palate.serving.schemas import (
    Events,
    Explain,
    NewItem,
    Problem,
    Recommend,
    RecommendBatch,
    Retire,
    Similar,
)
from palate.serving.served import RunCard
from palate.serving.service import Added, CannotGrowError, Reloaded, Service
from palate.serving.stores import FullDiskError
from palate.serving.waiting import LateError, in_time

if TYPE_CHECKING:
    from palate.serving.tools import ToolsDoor  # needs a package that a server without /mcp does not

ANSWER = TypeAdapter(Answer)
ANSWERS = TypeAdapter(list[Answer])
BEARER = HTTPBearer(auto_error=False, description="Needed where the server was given tokens")
SHOWN_VALUE = 60
"""Letters of a wrong value that an error repeats."""


class DeniedError(PalateError):
    """No token, a wrong one, or one that does not allow this."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


STATUSES: tuple[tuple[type[PalateError], int, str], ...] = (
    (BusyError, 429, "busy"), (LateError, 503, "late"), (ClosedError, 503, "closing"),
    (FullDiskError, 507, "full-disk"),
    (ConflictError, 409, "conflict"), (CannotGrowError, 409, "cannot-grow"), (UnknownIdError, 404, "unknown-id"),
    (MisuseError, 422, "misuse"), (ConfigError, 422, "misuse"), (DataError, 422, "data"), (StoreError, 503, "store"),
    (LeakError, 503, "data"), (EndpointError, 503, "endpoint"),
)  # fmt: skip
"""The first that fits says the status and the word; anything else is 500."""

SENTENCES = {
    400: "the request could not be read", 401: "a token is missing or wrong", 403: "the token allows reading only",
    404: "an id is unknown", 405: "another method is needed", 408: "the request came too slowly",
    409: "this contradicts what is there", 413: "the request is too large", 421: "another host is meant",
    422: "a field is missing, unknown or wrong", 429: "too many questions wait; Retry-After says when to ask again",
    503: "no answer in time, or the server is closing", 507: "the disk is full",
}  # fmt: skip
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": said} for status, said in SENTENCES.items()
}


@dataclass(frozen=True)
class Health:
    status: str


@dataclass(frozen=True)
class Retired:
    items: list[str]
    back: bool


def make_door(service: Service, tokens: Tokens, tools: ToolsDoor | None = None, *, local_only: bool) -> Guard:
    """All that stands between the wire and the service: the guard, the short way for questions, the framework."""
    app = make_app(service, tokens, tools)
    quick = Quick(app, _questions(service), tokens, lambda problem: _said(service, problem))
    return Guard(quick, metrics=service.metrics, log=service.log, local_only=local_only)


def make_app(service: Service, tokens: Tokens, tools: ToolsDoor | None = None) -> FastAPI:
    """The routes, with ``tools`` also /mcp. The app closes the service when it ends."""

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if tools is not None:
                await stack.enter_async_context(tools.open())
            yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="Palate", version=palate.__version__, lifespan=living, docs_url=None, redoc_url=None,
        description="Ask fitted recommenders, tell them events and new items.", responses=PROBLEMS,
    )  # fmt: skip
    _say_problems(app, service)
    reading, writing = _allowing(tokens, "read"), _allowing(tokens, "write")
    _add_questions(app, service, reading)
    _add_changes(app, service, writing)
    _add_state(app, service, reading)
    add_browsing(app, service, reading)
    if tools is not None:
        app.router.routes.append(Route("/mcp", tools, include_in_schema=False))
    add_pages(app, read_built())
    return app


# -- routes ----------------------------------------------------------------------------------------------------------


def _questions(service: Service) -> dict[str, tuple[type[BaseModel], Callable[[Any], Awaitable[bytes]]]]:
    """Address → what is asked there and what answers it, in JSON."""
    seconds = service.limits.seconds

    async def one(run: str | None, question: Question, k: int, why: bool = False) -> bytes:
        (answer,) = await in_time(service.ask(run, lambda served: served.recommend([question], k, why=why)), seconds)
        return ANSWER.dump_json(answer, exclude_none=True)

    async def recommend(asked: Recommend) -> bytes:
        """The best k items for a user or a history."""
        return await one(asked.run, asked.question(), asked.k, asked.why)

    async def recommend_batch(asked: RecommendBatch) -> bytes:
        """One answer a question, in their order; one wrong question refuses them all."""
        questions = [who.question() for who in asked.questions]
        asking = service.ask(asked.run, lambda served: served.recommend(questions, asked.k, why=asked.why))
        answers = await in_time(asking, seconds)
        return ANSWERS.dump_json(answers, exclude_none=True)

    async def similar(asked: Similar) -> bytes:
        """Items like one: what somebody would get who met it and nothing else."""
        return await one(asked.run, Question(history=[asked.item]), asked.k)

    async def explain(asked: Explain) -> bytes:
        """The score of each item and which events moved it: its score less the score without the event
        (leave-one-event-out), greatest drop first; the same for the words and, where scores follow from texts of items,
        for the parts of its text (leave-one-part-out)."""
        asking = service.ask(asked.run, lambda served: served.explain(asked.question(), asked.items))
        (answer,) = await in_time(asking, seconds)
        return ANSWER.dump_json(answer, exclude_none=True)

    return {
        "/v1/recommend": (Recommend, recommend), "/v1/recommend/batch": (RecommendBatch, recommend_batch),
        "/v1/similar": (Similar, similar), "/v1/explain": (Explain, explain),
    }  # fmt: skip


def _add_questions(app: FastAPI, service: Service, reading: Any) -> None:
    for path, (_, answer) in _questions(service).items():
        model = list[Answer] if path.endswith("/batch") else Answer
        app.post(path, response_model=model, dependencies=[reading], tags=["ask"])(_as_response(answer))


def _add_changes(app: FastAPI, service: Service, writing: Any) -> None:
    seconds = service.limits.seconds

    @app.post("/v1/events", dependencies=[writing], tags=["tell"])
    async def events(told: Events) -> list[Written]:
        """Write events; they are on disk when this answers, and the user's next answer reads them. The same key with
        the same event is written once."""
        (written,) = await in_time(service.append(told.run, [event.event() for event in told.events]), seconds)
        return written

    @app.post("/v1/items", dependencies=[writing], tags=["tell"])
    async def add_item(told: NewItem) -> Added:
        """Add an item to the catalogue; systems that read items' texts recommend it from now on."""
        return await service.change(lambda: service.add_item(told.run, told.content()))

    @app.post("/v1/items/retire", dependencies=[writing], tags=["tell"])
    async def retire(told: Retire) -> Retired:
        """Never recommend these items from now on, or recommend them again."""
        ids = await service.change(lambda: service.retire(told.run, told.items, back=told.back))
        return Retired(ids, told.back)

    @app.post("/v1/reload", dependencies=[writing], tags=["runs"])
    async def reload() -> Reloaded:
        """Serve the runs that lie in the folders now."""
        return await service.change(service.reload)


def _add_state(app: FastAPI, service: Service, reading: Any) -> None:
    @app.get("/v1/runs", dependencies=[reading], tags=["runs"])
    async def runs() -> list[RunCard]:
        """What is served, with measured figures and cost."""
        return service.cards()

    @app.get("/health", tags=["state"])
    async def health() -> Health:
        """The process answers."""
        return Health("alive")

    @app.get("/ready", tags=["state"])
    async def ready() -> Health:
        """Runs and ledger answer too."""
        problem = await service.readiness()
        if problem is not None:
            raise LateError(problem)
        return Health("ready")

    @app.get("/metrics", dependencies=[reading], tags=["state"], response_class=Response)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


# -- what routes share -----------------------------------------------------------------------------------------------


def _as_response(answer: Callable[[Any], Awaitable[bytes]]) -> Callable[[Any], Awaitable[Response]]:
    """The same as a route of the framework, described as ``answer`` describes itself."""

    @wraps(answer)
    async def response(asked: Any) -> Response:
        return Response(await answer(asked), media_type="application/json")

    return response


def _allowing(tokens: Tokens, scope: Scope) -> Any:
    """A dependency that lets through whoever may do this; the file says that a token is needed only where it is."""

    async def anybody() -> None:
        return

    async def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> None:
        found = tokens.scope_of(given.credentials if given is not None else "")
        if found is None:
            raise DeniedError(401, "this needs a token: send Authorization: Bearer TOKEN")
        if scope == "write" and found != "write":
            raise DeniedError(403, "this token allows reading only")

    return Depends(check if tokens else anybody)


def _say_problems(app: FastAPI, service: Service) -> None:
    """Errors as one sentence each."""

    async def known(request: Request, problem: Exception) -> JSONResponse:
        assert isinstance(problem, PalateError)
        return _said(service, problem)

    async def invalid(request: Request, problem: Exception) -> JSONResponse:
        assert isinstance(problem, RequestValidationError)
        return _problem(422, "invalid", sentence(dict(problem.errors()[0])))

    async def http(request: Request, problem: Exception) -> JSONResponse:
        assert isinstance(problem, HTTPException)
        said = SENTENCES.get(problem.status_code, str(problem.detail))
        if problem.status_code == 404:
            said = "there is nothing at this address; /openapi.json lists what there is"
        return _problem(problem.status_code, "http", said, dict(problem.headers or {}))

    async def bug(request: Request, problem: Exception) -> JSONResponse:
        return _problem(500, "bug", "this is a bug; the server's log says more")

    app.add_exception_handler(PalateError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, bug)


def _said(service: Service, problem: PalateError) -> JSONResponse:
    """A known problem with its status."""
    if isinstance(problem, DeniedError):
        headers = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else None
        return _problem(problem.status, "denied", str(problem), headers)
    if isinstance(problem, StoreError):  # whoever asked hears less than whoever can mend it
        service.log.error("store", problem=str(problem), cause=str(problem.__cause__ or ""))
    for kind, status, code in STATUSES:
        if isinstance(problem, kind):
            return _problem(status, code, str(problem), _retry_after(problem))
    service.log.error("failed", problem=str(problem))
    return _problem(500, "failed", str(problem))


def _retry_after(problem: PalateError) -> dict[str, str] | None:
    if isinstance(problem, BusyError):
        return {"Retry-After": str(problem.seconds)}
    return {"Retry-After": "1"} if isinstance(problem, (LateError, ClosedError)) else None


def _problem(status: int, code: str, said: str, headers: dict[str, str] | None = None) -> JSONResponse:
    plain = said.encode("utf-8", "replace").decode()
    return JSONResponse({"error": plain, "code": code}, status, headers)


def sentence(problem: dict[str, Any]) -> str:
    """A finding of pydantic as one sentence: which field, what was sent, what was expected."""
    where = ".".join(str(step) for step in problem["loc"] if step != "body")
    said = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "json_invalid":
        return f"the body is no JSON: {problem.get('ctx', {}).get('error', said)}"
    if not where:
        return said if problem["type"] == "value_error" else "send a JSON object with Content-Type: application/json"
    if problem["type"] == "extra_forbidden":
        return f"there is no field '{where[:SHOWN_VALUE]}' here; /openapi.json lists what there is"
    if problem["type"] in ("missing", "value_error"):
        return f"'{where}': {said}"
    return f"'{where[:200]}' cannot be {ascii(problem.get('input'))[:SHOWN_VALUE]}: {said}"
