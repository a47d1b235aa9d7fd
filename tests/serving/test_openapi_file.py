"""Schemathesis over the whole OpenAPI file: no 5xx, every answer as the file says, nothing wrong accepted."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from palate.serving.app import make_app, make_door
from palate.serving.auth import Tokens
from palate.serving.logs import make_log
from palate.serving.openapi import description
from palate.serving.served import Limits
from palate.serving.service import Service

schemathesis = pytest.importorskip("schemathesis", reason="needs pip install 'palate[dev]'")

FILE = description()
OPERATIONS = sorted((path, method) for path, methods in FILE["paths"].items() for method in methods)
EXAMPLES = [4, pytest.param(60, marks=pytest.mark.slow)]
KNOWN: dict[str, list[Any]] = {
    "run": ["text-cosine"], "space": ["text", "behaviour"], "user": ["r0001", "new"], "item": ["b001", "b002"],
    "history": ["b001", "b007"],
    "candidates": ["b002", "b003", "b004"], "leave_out": ["b003"], "items": ["b005", "b006"], "fit": ["text-cosine"],
    "filter": ["year=1850..", "category=fantasy,mystery"], "attributes": [{}, {"year": 1900}],
    "filters": [{"column": "year", "least": 1850}, {"column": "category", "any_of": ["fantasy"]}],
}  # fmt: skip
"""Values that mean something here."""
QUESTIONS = {"/v1/recommend", "/v1/explain"}


class Described:
    """The guarded app in this process. Schemathesis opens and closes it for every request: it stays open."""

    def __init__(self, service: Service) -> None:
        self._app = make_door(service, Tokens(), local_only=True)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, send)
            return
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})


@st.composite
def sensible(draw: st.DrawFn, cases: Any) -> Any:
    """A right case whose names mean something: nearly every other ends at an unknown id."""
    case = draw(cases)
    path = case.operation.path
    for said in (case.body, case.query):
        if isinstance(said, dict):
            new = {"item": said.get("item")} if path == "/v1/items" and said is case.body else {}
            _name(said, draw, question=path in QUESTIONS)
            said |= new
    return case


def _name(said: dict[str, Any], draw: st.DrawFn, *, question: bool) -> None:
    if question:
        for field in ("user", "history"):
            said.pop(field, None)
        said |= draw(st.sampled_from([{"user": ""}, {"history": []}]))
    for field, value in said.items():
        if field in KNOWN:
            known = st.sampled_from(KNOWN[field])
            said[field] = draw(st.lists(known, min_size=1, max_size=2)) if isinstance(value, list) else draw(known)
        elif isinstance(value, list):
            for one in value:
                if isinstance(one, dict):
                    _name(one, draw, question=field == "questions")


@pytest.fixture(scope="module")
def described(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    store = tmp_path_factory.mktemp("openapi") / "s.sqlite"
    service = Service([runs / "text-cosine"], store, limits=Limits(seconds=60), log=make_log(io.StringIO()))
    schema = schemathesis.openapi.from_dict(FILE)
    schema.app = Described(service)
    yield schema
    service.close()


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_answer_is_described_and_none_is_a_failure(path: str, method: str, examples: int, described: Any) -> None:
    checks = schemathesis.specs.openapi.checks
    wanted = [
        schemathesis.checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
        checks.response_headers_conformance, checks.response_schema_conformance, checks.negative_data_rejection,
    ]  # fmt: skip
    operation, modes, seen = described[path][method.upper()], schemathesis.GenerationMode, set()
    right, wrong = (operation.as_strategy(generation_mode=mode) for mode in (modes.POSITIVE, modes.NEGATIVE))
    bounded = settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip

    def ask(case: Any) -> None:
        seen.add(case.call_and_validate(base_url="http://localhost", checks=wanted).status_code)

    bounded(given(sensible(right))(ask))()
    assert 200 in seen, f"no question here was right: {seen}"
    if operation.body or operation.query:
        bounded(given(st.one_of(right, wrong))(ask))()


def test_the_file_asks_for_a_token_where_the_server_does() -> None:
    service: Any = SimpleNamespace(limits=Limits())
    with_tokens = make_app(service, Tokens.of({"read-token-0123456789": "read"})).openapi()["paths"]
    assert with_tokens["/v1/recommend"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in FILE["paths"]["/v1/recommend"]["post"]
