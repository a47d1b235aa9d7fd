"""A chat model behind any server that speaks the OpenAI form: hosted, vLLM, llama.cpp, Ollama and others.

The form is chat completions, which all of them speak. Servers differ in what they take beside text: ``tools`` and
``schema`` say so, and a server that refuses either answers 400, which becomes ``FormError``. Ollama answers 500 where
the model writes a broken tool call, which is a ``FormError``, too; vLLM without its parser leaves the call in the text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from palate.backbones.server import Server, ServerConfig
from palate.core import store
from palate.core.chat import ChatReply, ChatRequest, Finish, Message, ToolCall, Usage
from palate.core.errors import FormError

FINISHES: Mapping[str | None, Finish] = {"length": "length", "tool_calls": "tools", "content_filter": "refused"}
FRAME_TOKENS = 16
"""Around each message and tool, at most: roles, names, separators."""
TOLD = 20
"""Alternatives that the form lets one ask for."""


class ChatEndpointConfig(ServerConfig):
    tools: bool = True
    """Whether the server takes tools to call."""
    schema_answers: bool = True
    """Whether the server takes a JSON schema of the answer."""
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the server calls the longest answer: the older name is known everywhere, some hosted models want the new."""
    money_read: float = Field(0.0, ge=0)
    """Price of a million tokens read, in whatever money the budget is in."""
    money_written: float = Field(0.0, ge=0)
    """Price of a million tokens written."""


class ChatEndpoint:
    """The chat model."""

    config_type = ChatEndpointConfig
    pretrained: Literal["LM"] = "LM"

    def __init__(self, config: ChatEndpointConfig) -> None:
        self.config = config
        self._server = Server(config, "a chat model's endpoint", "answers that came are kept")

    @property
    def label(self) -> str:
        return self.config.model

    @property
    def version(self) -> str:
        return f"chat-endpoint/1 {self.config.url.rstrip('/')} {self.config.model}"

    @property
    def forms(self) -> frozenset[Literal["tools", "schema"]]:
        names: dict[Literal["tools", "schema"], bool] = {
            "tools": self.config.tools, "schema": self.config.schema_answers
        }  # fmt: skip
        return frozenset(name for name, taken in names.items() if taken)

    def reply(self, request: ChatRequest) -> ChatReply:
        if (request.tools and not self.config.tools) or (request.schema and not self.config.schema_answers):
            raise FormError(f"{self._server.where} takes no {'tools' if request.tools else 'schema of the answer'}")
        formed = bool(request.tools or request.schema or request.alternatives)
        asked = self._server.ask(
            lambda client: client.chat.completions.create(**self._written(request)), read_completion,
            each=self._most(request), formed=formed, calling=bool(request.tools),
        )  # fmt: skip
        message, finish, tokens, alternatives = asked.value
        # A server that does not say what it used is taken to have used the most.
        usage = self._most(request) if tokens is None else self._priced(*tokens)
        return ChatReply(message, finish, usage, asked.lost, asked.tries, asked.seconds, self.label, alternatives)

    def largest(self, request: ChatRequest) -> Usage:
        return self._most(request).times(self.config.tries)

    def save(self, folder: Path) -> None:
        store.save(folder, self, config=self.config)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return store.open_folder(folder).begun(cls)

    def _most(self, request: ChatRequest) -> Usage:
        """Of one attempt: a token is at least a byte."""
        frames = FRAME_TOKENS * (1 + len(request.messages) + len(request.tools) + sum(
            len(message.tool_calls) for message in request.messages
        ))  # fmt: skip
        return self._priced(request.n_bytes + frames, request.max_tokens)

    def _priced(self, read: int, written: int) -> Usage:
        money = (read * self.config.money_read + written * self.config.money_written) / 1e6
        return Usage(read, written, money)

    def _written(self, request: ChatRequest) -> dict[str, Any]:
        """The request in the server's form; what is not asked for is not named."""
        asked: dict[str, Any] = {
            "model": self.config.model,
            "messages": [_as_wire(message) for message in request.messages],
            "temperature": request.temperature,
            self.config.limit_name: request.max_tokens,
        }
        if request.top_p < 1:
            asked["top_p"] = request.top_p
        if request.seed is not None:
            asked["seed"] = request.seed
        if request.stop:
            asked["stop"] = list(request.stop)
        if request.tools:
            asked["tools"] = [
                {"type": "function", "function": {"name": t.name, "description": t.description,
                                                  "parameters": dict(t.parameters)}}
                for t in request.tools
            ]  # fmt: skip
        if request.schema is not None:
            asked["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": dict(request.schema)},
            }
        if request.alternatives:
            asked |= {"logprobs": True, "top_logprobs": min(request.alternatives, TOLD)}
        return asked


Read = tuple[Message, Finish, tuple[int, int] | None, dict[str, float]]


def read_completion(answer: Any) -> Read:
    """Message, why it ended, tokens read and written, the first token's alternatives. Raises ``ValueError`` when the
    server's answer is none: another shape, or a message with nothing in it."""
    try:
        choice = answer.choices[0]
        said = choice.message
        content, refusal = said.content or "", getattr(said, "refusal", None) or ""
        calls = tuple(_call(one) for one in said.tool_calls or ())
        usage = answer.usage
        tokens = None if usage is None else (int(usage.prompt_tokens), int(usage.completion_tokens))
        told = choice.logprobs.content if choice.logprobs is not None else None
        alternatives = {one.token: float(one.logprob) for one in told[0].top_logprobs} if told else {}
    except (AttributeError, IndexError, KeyError, TypeError) as failure:
        raise ValueError(f"its answer is no chat completion ({failure})") from None
    if not isinstance(content, str):
        raise ValueError("its message is not text")
    finish: Finish = "refused" if refusal else FINISHES.get(choice.finish_reason, "stop")
    if finish == "stop" and calls:
        finish = "tools"
    if not (content or calls or finish in ("refused", "length")):
        raise ValueError("its message is empty")
    return Message("assistant", content or refusal, calls), finish, tokens, alternatives


def _call(one: Any) -> ToolCall:
    raw = one.function.arguments or ""
    try:
        arguments = json.loads(raw)
    except (ValueError, RecursionError):
        arguments = None
    return ToolCall(str(one.id), str(one.function.name), arguments if isinstance(arguments, dict) else None, raw)


def _as_wire(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        wire["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.raw}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        wire["tool_call_id"] = message.call_id
    return wire
