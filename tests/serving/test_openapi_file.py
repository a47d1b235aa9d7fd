"""Schemathesis over the whole OpenAPI file: no 5xx, every answer as the file says, nothing wrong accepted."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from palate.serving.app import make_door
from palate.serving.auth import Tokens
from palate.serving.logs import make_log
from palate.serving.openapi import description
from palate.serving.served import Limits
from palate.serving.service import Service

schemathesis = pytest.importorskip("schemathesis", reason="needs pip install 'palate[dev]'")

FILE = description()
OPERATIONS = sorted((path, method) for path, methods in FILE["paths"].items() for method in methods)
EXAMPLES = [8, pytest.param(400, marks=pytest.mark.slow)]
KNOWN = {
    "run": ["text-cosine", "item-knn"], "user": ["r0001", "new"], "item": ["b001", "b002", "new"],
    "history": ["b001", "b007"], "candidates": ["b002", "b003", "b004"], "leave_out": ["b003"],
    "items": ["b005", "b006"], "column": ["category", "year"], "fit": ["item-knn"],
}  # fmt: skip
"""Values that mean something, drawn beside any others: else nearly every request would end at an unknown id."""


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


def with_known_values(schema: Any, name: str = "") -> Any:
    """The file with ``KNOWN`` values beside the pattern of each text that bears the name."""
    if isinstance(schema, list):
        return [with_known_values(one, name) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "string" and name in KNOWN and "enum" not in schema:
        return {"anyOf": [{"enum": KNOWN[name]}, schema]}
    if "in" in schema and "schema" in schema:
        return schema | {"schema": with_known_values(schema["schema"], schema["name"])}
    return {
        key: {field: with_known_values(one, field) for field, one in value.items()}
        if key == "properties"
        else with_known_values(value, name)
        for key, value in schema.items()
    }


@pytest.fixture(scope="module")
def described(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folders = [runs / "text-cosine", runs / "item-knn"]
    store = tmp_path_factory.mktemp("openapi") / "s.sqlite"
    service = Service(folders, store, limits=Limits(seconds=60), log=make_log(io.StringIO()))
    schema = schemathesis.openapi.from_dict(with_known_values(FILE))
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
    operation = described[path][method.upper()]
    modes = schemathesis.GenerationMode
    right, wrong = (operation.as_strategy(generation_mode=mode) for mode in (modes.POSITIVE, modes.NEGATIVE))
    can_be_wrong = operation.body or operation.query

    @given(st.one_of(right, wrong) if can_be_wrong else right)
    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def ask(case: Any) -> None:
        case.call_and_validate(base_url="http://localhost", checks=wanted)

    ask()
