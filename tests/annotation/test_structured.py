"""Records from a chat model in three forms, whatever it writes; scripted, recorded and replayed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

pytest.importorskip("openai")

from chat_server import ChatServer, calls, fails, recorded, says, send

from palate.annotation.structured import Structured, read_json, schema_of
from palate.backbones.chat_endpoint import ChatEndpoint, ChatEndpointConfig
from palate.backbones.scripted import Replay, ReplayConfig, Scripted, ScriptedConfig
from palate.core.asking import each
from palate.core.chat import ChatReply, ChatRequest, Message, Usage, reply_from_json, reply_to_json
from palate.core.errors import DataError, EndpointError, FormError, RefusedError
from palate.core.protocols import ChatModel


class Taste(BaseModel):
    model_config = ConfigDict(extra="forbid")
    likes: str
    stars: int = Field(ge=1, le=5)
    also: list[str] = []


GOOD = '{"likes": "ships", "stars": 4, "also": []}'


@pytest.fixture
def server() -> Iterator[ChatServer]:
    found = ChatServer(lambda asked: GOOD)
    yield found
    found.close()


def endpoint(server: ChatServer, **settings: Any) -> ChatEndpoint:
    usual = {"model": "m", "wait_seconds": 0.01, "tries": 2}
    return ChatEndpoint(ChatEndpointConfig(url=server.url, **usual | settings))


def test_the_three_forms_give_the_same_record(server: ChatServer) -> None:
    server.script = [calls(GOOD)]
    request, found = ChatRequest.of("?", "be kind"), []
    for settings in ({}, {"tools": False}, {"tools": False, "schema_answers": False}):
        found.append(Structured(endpoint(server, **settings)).ask(request, Taste))
    assert [answer.value for answer in found] == [Taste(likes="ships", stars=4)] * 3
    assert [(answer.form, answer.step) for answer in found] == [
        ("tools", "plain"), ("schema", "plain"), ("text", "plain")
    ]  # fmt: skip
    tool, schema, text = server.asked
    assert tool["tools"][0]["function"]["parameters"] == schema_of(Taste)
    assert schema["response_format"]["json_schema"]["schema"] == schema_of(Taste)
    assert schema_of(Taste)["required"] == ["likes", "stars", "also"]
    assert schema_of(Taste)["additionalProperties"] is False
    assert "tools" not in text
    assert json.dumps(schema_of(Taste)) in text["messages"][0]["content"]


def test_a_form_that_is_refused_twice_is_not_tried_again(server: ChatServer) -> None:
    server.script = [fails(400), fails(422), says(GOOD)] * 2
    asker = Structured(endpoint(server))
    assert [asker.ask(ChatRequest.of("?"), Taste).form for _ in range(3)] == ["text"] * 3
    assert len(server.asked) == 7
    assert asker.form == "text"


@pytest.mark.parametrize(
    ("text", "step"),
    [
        (GOOD, "plain"),
        (f"```json\n{GOOD}\n```", "fenced"),
        (f"Sure! Here it is:\n```\n{GOOD}\n```\nAnything else?", "fenced"),
        (f"Sure: {GOOD} I hope that helps.", "brackets"),
        ("{'likes': 'ships', 'stars': 4, 'also': [],}", "literal"),
        ('{"likes": "ships", "stars": 4, "also": [],}', "literal"),
        (json.dumps({"name": "answer", "arguments": json.loads(GOOD)}), "plain"),
        ("I like ships", "repaired"),
        ('{"likes": "ships", "stars": 9, "also": []}', "repaired"),
        ('{"likes": "ships", "stars": 4, "also": [], "run": "rm"}', "repaired"),
        ("[" * 5000, "repaired"),
        ("__import__('os').system('false')", "repaired"),
    ],
)
def test_whatever_is_written_is_read_or_repaired(text: str, step: str) -> None:
    model = Scripted(answers=[text, GOOD])
    asker = Structured(model)
    answer = asker.ask(ChatRequest.of("?"), Taste)
    assert (answer.value, answer.step) == (Taste(likes="ships", stars=4), step)
    assert asker.counts == {step: 1}
    assert len(model.asked) == len(answer.replies) == (2 if step == "repaired" else 1)
    assert answer.usage.tokens <= asker.largest(ChatRequest.of("?"), Taste).tokens


def test_what_cannot_be_repaired_fails_visibly() -> None:
    asker = Structured(Scripted(answers=["no", "never"]))
    answer = asker.ask(ChatRequest.of("?"), Taste)
    assert (answer.value, answer.step, len(answer.replies)) == (None, "failed", 2)
    assert "no JSON in the answer" in answer.problem
    assert asker.counts == {"failed": 1}
    refused = ChatReply(Message("assistant", "I will not"), "refused")
    asker = Structured(Scripted(answers=[refused]))
    assert "refused: I will not" in asker.ask(ChatRequest.of("?"), Taste).problem
    cut = ChatReply(Message("assistant", '{"likes": "sh'), "length")
    assert "cut off" in Structured(Scripted(answers=[cut]), repairs=0).ask(ChatRequest.of("?"), Taste).problem


def test_nothing_in_the_text_runs() -> None:
    with pytest.raises(ValueError, match="no JSON"):
        read_json("[__import__('os').getcwd()]")


def test_a_script_ends_and_a_script_begins_anew() -> None:
    model = Scripted(ScriptedConfig(replies=("a", "b")))
    assert isinstance(model, ChatModel)
    assert [model.reply(ChatRequest.of("?")).text for _ in range(2)] == ["a", "b"]
    with pytest.raises(EndpointError, match="has 2 answers and was asked once more"):
        model.reply(ChatRequest.of("?"))
    again = Scripted(ScriptedConfig(replies=("a", "b"), again=True))
    assert [again.reply(ChatRequest.of("?")).text for _ in range(3)] == ["a", "b", "a"]


def test_recorded_is_replayed_without_a_server(server: ChatServer, tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    server.script = [calls('{"likes": "é'), says("second")]
    recorder = recorded(endpoint(server), path)
    first, other = ChatRequest.of("?", temperature=1.0), ChatRequest.of("!")
    said = [recorder.reply(first), recorder.reply(first), recorder.reply(other)]
    with path.open("a") as stream:
        stream.write('{"hash": "cut by a ki')
    replay = Replay(ReplayConfig(path=str(path)))
    assert isinstance(replay, ChatModel)
    again = [replay.reply(first), replay.reply(first), replay.reply(other), replay.reply(first)]
    assert again == [replace(one, replayed=True) for one in (*said, said[1])]
    assert sum(one.usage.tokens for one in again) > 0 == sum(one.charged.tokens for one in again)
    assert (replay.label, replay.version) == ("m", recorder.version)
    assert len(server.asked) == 3
    with pytest.raises(EndpointError, match="holds no reply to this request"):
        replay.reply(ChatRequest.of("unheard"))
    assert reply_from_json(json.loads(json.dumps(reply_to_json(said[0])))) == said[0]
    path.write_text('{"hash": 1}\n')
    with pytest.raises(DataError, match=r"said\.jsonl, line 1: .* expected a recorded reply"):
        Replay(ReplayConfig(path=str(path)))


def test_many_at_once_and_the_first_error_last() -> None:
    assert sorted(each(range(20), lambda n: n * n, 3)) == [(n, n * n) for n in range(20)]

    def ask(n: int) -> int:
        if n == 5:
            raise FormError("five")
        return n

    seen: list[int] = []
    with pytest.raises(FormError, match="five"):
        seen.extend(n for n, _ in each(iter(range(1000)), ask, 2))
    assert {0, 1, 2, 3, 4} <= set(seen)
    assert len(seen) < 10


# -- refusals ----------------------------------------------------------------------------------------------------------


def picky(refuses: Callable[[ChatRequest], bool], kind: type[Exception] = FormError) -> Scripted:
    """A model that refuses some requests, and else answers well."""

    def answer(request: ChatRequest) -> str:
        if refuses(request):
            raise kind("answered 400: not this")
        return GOOD

    return Scripted(answers=answer)


def test_what_one_request_is_refused_says_nothing_of_the_next() -> None:
    asker = Structured(picky(lambda request: bool(request.tools) and "odd" in request.messages[-1].content))
    forms = [asker.ask(ChatRequest.of(text), Taste).form for text in ("a", "odd", "odd 2", "odd 3", "b")]
    assert forms == ["tools", "schema", "schema", "schema", "tools"]


def test_a_form_that_never_worked_is_given_up_once_lower_ones_answered_two_requests() -> None:
    model = picky(lambda request: bool(request.tools))
    asker = Structured(model)
    before = asker.largest(ChatRequest.of("?"), Taste)
    assert [asker.ask(ChatRequest.of("?"), Taste).form for _ in range(4)] == ["schema"] * 4
    assert sum(bool(request.tools) for request in model.asked) == 2
    assert asker.largest(ChatRequest.of("?"), Taste).tokens < before.tokens


def test_a_request_that_is_refused_in_every_form_gives_up_no_form() -> None:
    def refuses(request: ChatRequest) -> bool:
        if "odd" in request.messages[-1].content and not (request.tools or request.schema):
            raise RefusedError("answered 400: content policy", Usage(3, 0))
        return "odd" in request.messages[-1].content

    asker = Structured(picky(refuses))
    for _ in range(3):
        answer = asker.ask(ChatRequest.of("odd"), Taste)
        assert (answer.value, answer.step, answer.replies) == (None, "refused", ())
        assert answer.problem == "answered 400: content policy"
        assert answer.usage == Usage(3, 0)
    assert asker.form == "tools"
    assert asker.counts == {"refused": 3}


def test_a_server_that_goes_away_before_the_repair_leaves_the_request_open() -> None:
    turns = iter(["no JSON"])

    def answer(request: ChatRequest) -> str:
        for text in turns:
            return text
        raise EndpointError("down", Usage(5, 0))

    with pytest.raises(EndpointError, match="down") as failure:
        Structured(Scripted(answers=answer)).ask(ChatRequest.of("?"), Taste)
    assert failure.value.lost is not None
    assert failure.value.lost.written == len("no JSON"), "the first answer was paid for"


@pytest.mark.parametrize("said", ["error parsing tool call: raw='{'", "tools param requires another flag"])
def test_a_500_to_a_question_with_tools_is_a_refused_form(server: ChatServer, said: str) -> None:
    broken = 1 if "parsing" in said else 2
    server.script = [lambda handler, asked: send(handler, 500, {"error": {"message": said}})] * broken
    asker = Structured(endpoint(server))
    answer = asker.ask(ChatRequest.of("?"), Taste)
    assert (answer.value, answer.form) == (Taste(likes="ships", stars=4), "schema")
    assert (answer.lost.tokens > 0) == (broken == 1), "a model that wrote a broken call has worked"
    assert ["tools" in one for one in server.asked] == [True] * broken + [False]
