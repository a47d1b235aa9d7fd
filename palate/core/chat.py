"""What is said to a chat model and what it answers: messages, tools, requests, replies, and what they cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from palate.core.errors import ConfigError

Role = Literal["system", "user", "assistant", "tool"]
Finish = Literal["stop", "length", "tools", "refused"]


@dataclass(frozen=True)
class ToolCall:
    """A model asks for a tool. ``arguments`` is None where ``raw``, the text as it came, is no JSON object."""

    id: str
    name: str
    arguments: Mapping[str, Any] | None
    raw: str


@dataclass(frozen=True)
class Message:
    """One turn. ``call_id`` is that of the call which a message of role ``tool`` answers."""

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


@dataclass(frozen=True)
class Tool:
    """What a model may ask for; ``parameters`` is the JSON schema of its arguments. Nothing here can be run."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class ChatRequest:
    """One question to a chat model.

    tools         what it may call
    schema        the JSON schema that the answer's text must follow; None = free text
    stop          texts at which it ends, not part of the answer
    temperature   0 = the likeliest token, always
    top_p         of the tokens the likeliest that together have so much, in (0, 1], are drawn from; 1 = all
    max_tokens    the longest answer
    alternatives  how many of the likeliest first tokens are told with their log-probabilities
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    schema: Mapping[str, Any] | None = None
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    max_tokens: int = 512
    seed: int | None = 0
    alternatives: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is a share above 0 and at most 1, not {self.top_p}")

    @classmethod
    def of(cls, user: str, system: str = "", **more: Any) -> ChatRequest:
        """One sentence to the model, with an optional instruction before it."""
        before = (Message("system", system),) if system else ()
        return cls((*before, Message("user", user)), **more)

    @cached_property
    def hash(self) -> str:
        """Equal exactly when the same is asked in the same way. Without a ``top_p`` it is that of requests before there
        was one, so that answers kept since are found."""
        asked = asdict(self)
        if self.top_p == 1:
            del asked["top_p"]
        return hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=16).hexdigest()

    @property
    def n_bytes(self) -> int:
        """Of everything a model reads: no text tokenizer in use makes more tokens than bytes."""
        said = sum(len(m.content.encode()) + sum(len(c.raw.encode()) for c in m.tool_calls) for m in self.messages)
        shown = [asdict(tool) for tool in self.tools] + ([dict(self.schema)] if self.schema is not None else [])
        return said + sum(len(json.dumps(one).encode()) for one in shown)


@dataclass(frozen=True)
class Usage:
    """Tokens read and written, and what they cost in the money that the model's prices are in."""

    read: int = 0
    written: int = 0
    money: float = 0.0

    @property
    def tokens(self) -> int:
        return self.read + self.written

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.read + other.read, self.written + other.written, self.money + other.money)

    def times(self, n: int) -> Usage:
        return Usage(self.read * n, self.written * n, self.money * n)


NOTHING_USED = Usage()


@dataclass(frozen=True)
class ChatReply:
    """What a model answered.

    finish        ``length``: the answer was cut at ``max_tokens``; ``refused``: the model would not answer
    usage         of this answer
    lost          what attempts before it may have cost at most: those that were sent and whose answer never came whole
    tries         attempts in all, this one included
    alternatives  first token → its log-probability, where they were asked for and the model tells them
    replayed      said again from a recording: ``usage`` and ``lost`` are those of then, and nothing is charged
    """

    message: Message
    finish: Finish = "stop"
    usage: Usage = NOTHING_USED
    lost: Usage = NOTHING_USED
    tries: int = 1
    seconds: float = 0.0
    model: str = ""
    alternatives: Mapping[str, float] = field(default_factory=dict)
    replayed: bool = False

    @property
    def text(self) -> str:
        return self.message.content

    @property
    def charged(self) -> Usage:
        """What a budget pays for it, lost attempts included."""
        return NOTHING_USED if self.replayed else self.usage + self.lost


def reply_to_json(reply: ChatReply) -> dict[str, Any]:
    """Plain values that ``reply_from_json`` reads."""
    return asdict(reply)


def reply_from_json(content: Mapping[str, Any]) -> ChatReply:
    """The reply that was written. Raises ``KeyError`` or ``TypeError`` where it is another thing."""
    said = dict(content["message"])
    said["tool_calls"] = tuple(ToolCall(**call) for call in said["tool_calls"])
    values = dict(content) | {
        "message": Message(**said), "usage": Usage(**content["usage"]), "lost": Usage(**content["lost"])
    }  # fmt: skip
    return ChatReply(**values)
