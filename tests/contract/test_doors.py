"""Every system answers alike through every door: in Python, on the command line, over HTTP and as a tool (MCP)."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from palate.ask import Asker
from palate.core.protocols import Recommender
from palate.core.rankings import Ranking
from palate.core.split import Split
from palate.experiment import make_plan
from palate.filters import parse_filter
from palate.questions import Question, together
from palate.runs import FittedRun
from tests.contract.questions import options_of

K = 6
SECONDS = 120
"""An answer may take so long on a busy machine."""

Said = list[tuple[str, float | None]]
"""Ids and scores, best first."""


@pytest.fixture
def run(name: str, system: Recommender, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The session's fitted system as a finished run; the doors find its data already read."""
    monkeypatch.setattr("palate.data.sources.load", lambda *_, **__: split.dataset)
    folder = tmp_path / name
    data = split.dataset
    facts = {
        "data": {"name": data.name, "fingerprint": data.fingerprint, "simulated": data.about.simulated},
        "split": {"rule": split.rule, "hash": split.hash}, "cost": {},
    }  # fmt: skip
    settings, preset = options_of(name)
    fitted = FittedRun(folder, make_plan(name, data.name, preset=preset, settings=settings), facts)
    system.save(fitted.system_folder(0))
    fitted.write_tables(split)
    fitted.write()
    return folder


@pytest.fixture
def service(run: Path, tmp_path: Path) -> Iterator[Any]:
    pytest.importorskip("fastapi", reason="the HTTP API needs pip install 'palate[serve]'")
    from palate.serving.logs import make_log
    from palate.serving.served import Limits
    from palate.serving.service import Service

    serving = Service([run], tmp_path / "s.sqlite", limits=Limits(seconds=SECONDS), log=make_log(io.StringIO()))
    yield serving
    serving.close()


def asked(asker: Asker) -> list[tuple[Question, list[str]]]:
    """Questions, each with the same as options of the command line."""
    ids, user = asker.item_ids, asker.dataset.user_ids[3]
    history, out, wish = ids[3:9:2], ids[20:24], "year=1800..1990"
    limited = Question(history=history, leave_out=out, filters=[parse_filter(wish)])
    options = ["--history", ",".join(history), "--leave-out", ",".join(out), "--filter", wish]
    if asker.reads_words:
        limited, options = replace(limited, words="a voyage at sea"), [*options, "--words", "a voyage at sea"]
    return [(Question(user=user), ["--user", user]), (limited, options)]


def test_python_command_line_http_and_tools_answer_alike(
    system: Recommender, run: Path, service: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asker: Asker = service.find(None).asker
    for question, options in asked(asker):
        (ranking,) = system.recommend(together([asker.read(question)]), K).named(asker.item_ids)
        said = in_python(ranking)
        assert len(said) == K
        assert not {item for item, _ in said} & {*(question.history or ()), *question.leave_out}
        assert on_the_command_line(run, options, capsys) == said
        assert asyncio.run(over_http(service, question)) == said
        assert asyncio.run(as_a_tool(service, question)) == said


def in_python(ranking: Ranking) -> Said:
    return [(i, None if s != s else s) for i, s in zip(ranking.items, ranking.scores, strict=True)]


def on_the_command_line(run: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> Said:
    from palate.cli.main import main

    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main(["recommend", str(run), *options, "-k", str(K), "--json"])
    return listed(json.loads(capsys.readouterr().out))


async def over_http(service: Any, question: Question) -> Said:
    import httpx2

    from palate.serving.app import make_door
    from palate.serving.auth import Tokens

    wishes = [{"column": one.column, "least": one.least, "most": one.most} for one in question.filters]
    body = {"k": K, "words": question.words, "leave_out": question.leave_out, "filters": wishes, **who(question)}
    app = httpx2.ASGITransport(app=make_door(service, Tokens(), local_only=True))
    async with httpx2.AsyncClient(transport=app, base_url="http://localhost", timeout=SECONDS) as client:
        answer = await client.post("/v1/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return listed(answer.json())


async def as_a_tool(service: Any, question: Question) -> Said:
    mcp = pytest.importorskip("mcp", reason="the MCP server needs pip install 'palate[mcp]'")
    from palate.serving.tools import make_tools

    wishes = [f"{one.column}={one.least:g}..{one.most:g}" for one in question.filters]
    given = {"k": K, "words": question.words, "leave_out": question.leave_out, "filters": wishes, **who(question)}
    async with mcp.Client(make_tools(service, writes=False)) as client:
        result = await client.call_tool("recommend", given)
    assert not result.is_error, result.content
    return listed(result.structured_content)


def who(question: Question) -> dict[str, Any]:
    return {"user": question.user} if question.history is None else {"history": question.history}


def listed(answer: dict[str, Any]) -> Said:
    return [(one["item"], one.get("score")) for one in answer["recommended"]]
