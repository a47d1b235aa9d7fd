"""A chat model over real HTTP, and what it does when the server misbehaves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("openai")

from chat_server import (
    ChatServer,
    Reply,
    calls,
    completion,
    cut_off,
    fails,
    hangs_up,
    malformed,
    no_completion,
    says,
    send,
    sleeps,
)

from palate.backbones.chat_endpoint import ChatEndpoint, ChatEndpointConfig
from palate.backbones.pace import Pace
from palate.core import store
from palate.core.chat import ChatRequest, Message, Tool, ToolCall
from palate.core.config import Part
from palate.core.errors import EndpointError, FormError, MissingExtraError
from palate.core.protocols import ChatModel
from palate.systems import component


@pytest.fixture
def server() -> Iterator[ChatServer]:
    found = ChatServer()
    yield found
    found.close()


def model(server: ChatServer, **settings: Any) -> ChatEndpoint:
    usual = {"model": "m", "wait_seconds": 0.01, "timeout_seconds": 5.0, "tries": 3}
    return ChatEndpoint(ChatEndpointConfig(url=server.url, **usual | settings))


LOOK = Tool("look", "Looks something up.", {"type": "object", "properties": {"what": {"type": "string"}}})


def test_what_is_asked_and_what_comes_back(server: ChatServer) -> None:
    chat = model(server, money_read=1.0, money_written=2.0)
    assert isinstance(chat, ChatModel)
    server.script = [calls('{"what": "ships"}', "look", content="one moment")]
    request = ChatRequest.of("hello", "be brief", tools=(LOOK,), stop=("\n",), max_tokens=9, seed=3, temperature=0.5)
    reply = chat.reply(request)
    assert server.asked == [{
        "model": "m", "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
        "temperature": 0.5, "max_tokens": 9, "seed": 3, "stop": ["\n"],
        "tools": [{"type": "function", "function": {
            "name": "look", "description": "Looks something up.", "parameters": dict(LOOK.parameters)}}],
    }]  # fmt: skip
    assert reply.message == Message(
        "assistant", "one moment", (ToolCall("call-1", "look", {"what": "ships"}, '{"what": "ships"}'),)
    )
    assert (reply.finish, reply.tries, reply.lost.tokens) == ("tools", 1, 0)
    assert (reply.usage.read, reply.usage.written, reply.usage.money) == (11, 7, (11 + 2 * 7) / 1e6)
    # The call and its answer go back as they came.
    chat.reply(ChatRequest((*request.messages, reply.message, Message("tool", "none", call_id="call-1"))))
    assert server.asked[1]["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"what": "ships"}'
    assert server.asked[1]["messages"][3] == {"role": "tool", "content": "none", "tool_call_id": "call-1"}


def test_a_share_of_the_tokens_is_named_where_one_is_asked_for(server: ChatServer) -> None:
    model(server).reply(ChatRequest.of("?", temperature=0.6, top_p=0.1))
    model(server).reply(ChatRequest.of("?", temperature=0.6))
    assert server.asked[0]["top_p"] == 0.1
    assert "top_p" not in server.asked[1]


def test_a_broken_tool_call_is_kept_as_it_came(server: ChatServer) -> None:
    server.script = [calls('{"what": ', "look")]
    [call] = model(server).reply(ChatRequest.of("?", tools=(LOOK,))).message.tool_calls
    assert (call.arguments, call.raw) == (None, '{"what": ')


def test_alternatives_and_endings(server: ChatServer) -> None:
    told = completion("4")
    told["choices"][0]["logprobs"] = {"content": [
        {"token": "4", "logprob": -0.1, "bytes": None, "top_logprobs": [
            {"token": "4", "logprob": -0.1, "bytes": None}, {"token": "5", "logprob": -2.5, "bytes": None}]}
    ]}  # fmt: skip
    server.script = [
        lambda handler, asked: send(handler, 200, told), says("cut he", "length"), says(None, refusal="I will not"),
        says("", "content_filter"),
    ]  # fmt: skip
    chat = model(server)
    assert chat.reply(ChatRequest.of("?", alternatives=50)).alternatives == {"4": -0.1, "5": -2.5}
    assert server.asked[0]["top_logprobs"] == 20
    assert [chat.reply(ChatRequest.of("?")).finish for _ in range(3)] == ["length", "refused", "refused"]


@pytest.mark.parametrize(
    ("trouble", "lost"),
    [
        ([fails(429)], 0), ([fails(503), fails(500)], 0), ([fails(504)], 1), ([hangs_up], 1), ([cut_off], 1),
        ([malformed], 1), ([no_completion], 1), ([says("")], 1), ([malformed, fails(429)], 1),
    ],
)  # fmt: skip
def test_a_server_that_recovers_is_asked_again(server: ChatServer, trouble: list[Reply], lost: int) -> None:
    server.script = list(trouble)
    chat, request = model(server), ChatRequest.of("hello", max_tokens=10)
    reply = chat.reply(request)
    assert reply.text == "yes"
    assert (reply.tries, len(server.asked)) == (len(trouble) + 1,) * 2
    # What was sent and came to nothing may have to be paid: at most its share of the largest cost.
    assert reply.lost == model(server, tries=1).largest(request).times(lost)
    assert reply.usage.tokens + reply.lost.tokens <= chat.largest(request).tokens


def test_a_slow_server_is_asked_again(server: ChatServer) -> None:
    server.script = [sleeps]
    reply = model(server, timeout_seconds=0.3).reply(ChatRequest.of("hello"))
    assert (reply.text, reply.tries, reply.lost.tokens > 0) == ("yes", 2, True)


@pytest.mark.parametrize(
    ("trouble", "message", "tries"),
    [
        (fails(500), r"\(m\) answered 500: .*no, 500.*, after 3 tries; answers that came are kept", 3),
        (cut_off, r"cannot be reached or understood: .*, after 3 tries", 3),
        (says(""), r"gave a wrong answer: its message is empty, after 3 tries", 3),
        (no_completion, r"gave a wrong answer: its answer is no chat completion", 3),
        (fails(401), r"answered 401.*set the environment variable OPENAI_API_KEY", 1),
        (fails(400), r"answered 400", 1),
    ],
)  # fmt: skip
def test_what_stays_broken_is_one_sentence(server: ChatServer, trouble: Reply, message: str, tries: int) -> None:
    server.script = [trouble] * 9
    with pytest.raises(EndpointError, match=message) as failure:
        model(server).reply(ChatRequest.of("hello"))
    assert len(server.asked) == tries
    assert failure.value.lost is not None


def test_tools_and_schemas_that_are_not_taken(server: ChatServer) -> None:
    server.script = [fails(400)]
    with pytest.raises(FormError, match="answered 400"):
        model(server).reply(ChatRequest.of("hello", tools=(LOOK,)))
    chat = model(server, tools=False)
    assert chat.forms == {"schema"}
    with pytest.raises(FormError, match="takes no tools"):
        chat.reply(ChatRequest.of("hello", tools=(LOOK,)))
    assert len(server.asked) == 1


def test_never_more_at_once_than_allowed(server: ChatServer) -> None:
    server.script = [lambda handler, asked: (time.sleep(0.05), says("yes")(handler, asked))[1]] * 12
    chat = model(server, parallel=2)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: chat.reply(ChatRequest.of("hello")), range(12)))
    assert server.most_at_once == 2


def test_the_pace_is_kept_and_a_pause_holds_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("palate.backbones.pace.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("palate.backbones.pace.time.sleep", lambda s: clock.__setitem__(0, clock[0] + s))
    pace, began = Pace(per_minute=30, parallel=3), []
    for place in range(5):
        if place == 3:
            pace.hold(10)
        with pace.turn():
            began.append(clock[0])
    assert began == [0, 2, 4, 14, 16]


def test_saved_by_settings_and_named_in_settings(server: ChatServer, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-3")
    chat = component("chat", Part(name="endpoint", settings={"url": server.url, "model": "m"}))
    chat.save(tmp_path / "saved")
    loaded = store.load(tmp_path / "saved")
    assert (loaded.version, loaded.label, loaded.reply(ChatRequest.of("hello")).text) == (chat.version, "m", "yes")
    assert not any(b"secret-3" in path.read_bytes() for path in (tmp_path / "saved").iterdir())
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"asking a chat model's endpoint .* pip install 'palate\[llm\]'"):
        model(server).reply(ChatRequest.of("hello"))
