"""The MCP server, asked by the official client: over the standard streams of a real process, and at /mcp."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from palate.ask import Asker
from palate.questions import Question
from palate.runs import FittedRun
from palate.serving.auth import Tokens
from tests.serving.conftest import client as http
from tests.serving.running import running

mcp = pytest.importorskip("mcp", reason="the MCP server needs pip install 'palate[mcp]'")

READ, WRITE = "read-token-0123456789", "write-token-0123456789"
NAMES = {"recommend", "similar", "explain", "search_items", "runs"}


def asking(server: Any, work: Callable[[Any], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with mcp.Client(server) as client:
            return await work(client)

    return asyncio.run(asyncio.wait_for(run(), 120))


def over_http(address: str, token: str) -> Any:
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    headers = {"Authorization": f"Bearer {token}"}
    return streamable_http_client(f"{address}/mcp", http_client=httpx2.AsyncClient(headers=headers, timeout=60))


async def names(client: Any) -> set[str]:
    return {tool.name for tool in (await client.list_tools()).tools}


async def answered(client: Any, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content


async def refused(client: Any, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content[0].text)


def test_a_process_on_standard_streams_answers_as_python_does(runs: Path, tmp_path: Path) -> None:
    asker = Asker(FittedRun.open(runs / "text-cosine"))
    history, words = asker.item_ids[3:6], "a voyage at sea"
    code = "from palate.cli.main import main; main()"
    process = mcp.StdioServerParameters(
        command=sys.executable,
        args=["-c", code, "serve", str(runs / "text-cosine"), "--mcp", "--store", str(tmp_path / "s.sqlite")],
        env=dict(os.environ),
    )

    async def work(client: Any) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == NAMES, "nothing may be written unless it was allowed"
        assert all(tool.annotations.read_only_hint and tool.description for tool in tools.values())
        assert tools["recommend"].input_schema["properties"]["k"]["maximum"] == 50
        assert "recommended" in tools["recommend"].output_schema["properties"]

        for asked in ({"history": history}, {"user": "r0002"}, {"history": history, "words": words}):
            said = await answered(client, "recommend", k=5, **asked)
            (expected,) = asker.answers([asker.read(Question(**asked))], 5)  # type: ignore[arg-type]
            assert [(one["item"], one["title"], one["score"]) for one in said["recommended"]] == [
                (one.item, one.title, one.score) for one in expected.recommended
            ]
        why = await answered(client, "recommend", history=history, k=2, why=True)
        assert {"item", "title", "drop"} <= set(why["recommended"][0]["because"][0])
        assert why["methods"]["text_parts"] == "leave-one-part-out"
        assert not any(one.get("text_parts") for one in why["recommended"]), "which explain tells, one by one"
        old = await answered(client, "recommend", history=history, filters=["year=..1900"])
        years = dict(zip(asker.item_ids, asker.run.items["year"].to_list(), strict=True))
        assert old["recommended"]
        assert all(years[one["item"]] <= 1900 for one in old["recommended"])
        near = await answered(client, "similar", item=asker.titles[4], k=3)
        assert len(near["recommended"]) == 3
        explained = await answered(client, "explain", items=asker.item_ids[20:22], history=history)
        assert {one["item"] for one in explained["recommended"]} == set(asker.item_ids[20:22])
        assert {"text", "drop"} == set(explained["recommended"][0]["text_parts"][0])
        found = await answered(client, "search_items", said=asker.titles[4].lower())
        assert asker.item_ids[4] in {one["item"] for one in found["items"]}
        (card,) = (await answered(client, "runs"))["result"]
        assert (card["name"], card["reads_words"]) == ("text-cosine", True)

        assert "either a user or a history" in await refused(client, "recommend")
        assert "no item or title 'nothing'" in await refused(client, "similar", item="nothing")
        assert "no run 'other'" in await refused(client, "recommend", history=[], run="other")
        assert "50" in await refused(client, "recommend", history=[], k=51)
        assert "write COLUMN=VALUE" in await refused(client, "search_items", filters=["year"])

    asking(process, work)


def test_over_http_writing_is_for_those_with_a_token_that_writes(runs: Path, tmp_path: Path) -> None:
    tokens = Tokens.of({READ: "read", WRITE: "write"})
    event = {"user": "eve", "item": "b001", "key": "one"}
    with running([runs / "item-knn"], tmp_path / "s.sqlite", tokens=tokens, tools=True) as (service, address):

        async def writes(client: Any) -> None:
            assert await names(client) == NAMES | {"add_event"}
            assert (await answered(client, "add_event", **event))["new"]
            assert not (await answered(client, "add_event", **event))["new"], "the same key is the same event"
            assert "no item 'b999'" in await refused(client, "add_event", user="eve", item="b999")
            said = await answered(client, "recommend", user="eve")
            assert [one["item"] for one in said["history"]] == ["b001"]

        async def reads(client: Any) -> None:
            assert await names(client) == NAMES
            await refused(client, "add_event", user="eve", item="b002")

        asking(over_http(address, WRITE), writes)
        asking(over_http(address, READ), reads)
        with http(address) as stranger:
            said = stranger.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
            assert (said.status_code, said.json()["code"]) == (401, "denied")
        assert service.ledger.n_events(service.find(None).data) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--allow-writes"], "add --mcp or --mcp-http"), (["--mcp", "--mcp-http"], "drop one")],
)
def test_the_command_refuses_what_makes_no_sense(
    options: list[str], said: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from palate.cli.main import main

    with pytest.raises(SystemExit, match="2"):
        main(["serve", str(runs / "item-knn"), *options])
    assert said in capsys.readouterr().err
