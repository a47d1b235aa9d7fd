"""Chat models without a model: one that says what it was told to say, one that says what another said before."""

from __future__ import annotations

import json
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from palate.core import store
from palate.core.chat import NOTHING_USED, ChatReply, ChatRequest, Message, Usage, reply_from_json, reply_to_json
from palate.core.config import Config, Part
from palate.core.errors import DataError, EndpointError, MisuseError
from palate.core.protocols import ChatModel

Answers = Sequence[str | ChatReply] | Callable[[ChatRequest], str | ChatReply]
ALL_FORMS: frozenset[Literal["tools", "schema"]] = frozenset({"tools", "schema"})


class ScriptedConfig(Config):
    replies: tuple[str, ...] = ()
    """Said one after another."""
    again: bool = False
    """Begin anew after the last; else asking once more is an error."""


class Scripted:
    """Says what the settings list, or what ``answers`` gives: a list, or a function of the request.

    ``asked`` keeps every request. A token is a byte here, so usage is exact.
    """

    config_type = ScriptedConfig
    pretrained: Literal["no"] = "no"
    label = "scripted"
    version = "scripted/1"
    forms = ALL_FORMS

    def __init__(self, config: ScriptedConfig | None = None, answers: Answers | None = None) -> None:
        self.config = config or ScriptedConfig()
        self._answers: Answers = self.config.replies if answers is None else answers
        self._given = answers is not None
        self._lock = threading.Lock()
        self.asked: list[ChatRequest] = []

    def reply(self, request: ChatRequest) -> ChatReply:
        with self._lock:
            turn = len(self.asked)
            self.asked.append(request)
        said = self._answers(request) if callable(self._answers) else self._at(self._answers, turn)
        if isinstance(said, ChatReply):
            return said
        return ChatReply(
            Message("assistant", said), usage=Usage(request.n_bytes, len(said.encode())), model=self.label
        )  # fmt: skip

    def _at(self, answers: Sequence[str | ChatReply], turn: int) -> str | ChatReply:
        if answers and self.config.again:
            turn %= len(answers)
        if turn >= len(answers):
            raise EndpointError(f"the script has {len(answers)} answers and was asked once more")
        return answers[turn]

    def largest(self, request: ChatRequest) -> Usage:
        return Usage(request.n_bytes, request.max_tokens)

    def save(self, folder: Path) -> None:
        if self._given:
            raise MisuseError(
                "a scripted model whose answers were given in code cannot be saved; put them in its settings"
            )
        store.save(folder, self, config=self.config)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return store.open_folder(folder).begun(cls)


class RecorderConfig(Config):
    path: str = Field(min_length=1)
    """The file that requests and replies are added to."""
    chat: Part
    """The chat model that is asked: ``chat.name=endpoint``, ``chat.url=…``."""


class Recorder:
    """Another chat model, whose requests and replies are written to a file as they come, one JSON a line, with what it
    is and in which forms it may be asked."""

    config_type = RecorderConfig

    def __init__(self, config: RecorderConfig, *, chat: ChatModel) -> None:
        self.config, self.chat = config, chat
        self.parts = {"chat": chat}
        self._lock = threading.Lock()

    @property
    def label(self) -> str:
        return self.chat.label

    @property
    def version(self) -> str:
        return self.chat.version

    @property
    def pretrained(self) -> Literal["no", "LM"]:
        return self.chat.pretrained

    @property
    def forms(self) -> frozenset[Literal["tools", "schema"]]:
        return self.chat.forms

    def reply(self, request: ChatRequest) -> ChatReply:
        """The answer of the model, once it is in the file. Raises ``DataError`` where it cannot be written."""
        found = self.chat.reply(request)
        line = {"hash": request.hash, "version": self.version, "forms": sorted(self.forms),
                "request": asdict(request), "reply": reply_to_json(found)}  # fmt: skip
        path = Path(self.config.path).expanduser()
        try:
            with self._lock, path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as failure:
            raise DataError(f"what {self.label} says cannot be recorded in {path}: {failure.strerror}") from None
        return found

    def largest(self, request: ChatRequest) -> Usage:
        return self.chat.largest(request)

    def save(self, folder: Path) -> None:
        chat: Any = self.chat
        store.save(folder, self, config=self.config, parts={"chat": chat})

    @classmethod
    def load(cls, folder: Path) -> Self:
        return store.open_folder(folder).begun(cls)


class ReplayConfig(Config):
    path: str = Field(min_length=1)
    """The file that a ``Recorder`` wrote."""


class Replay:
    """Says again what was recorded, request by request; the same request twice gives the two replies in their order,
    and from then on the last. Nothing is asked anywhere and nothing is charged: ``usage`` says what it was then, for
    figures of cost, and ``replayed`` that no budget pays for it."""

    config_type = ReplayConfig
    pretrained: Literal["LM"] = "LM"

    def __init__(self, config: ReplayConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._kept: defaultdict[str, deque[ChatReply]] = defaultdict(deque)
        versions: dict[str, None] = {}
        self.forms = ALL_FORMS
        path = Path(config.path).expanduser()
        if not path.is_file():
            raise DataError(f"there is no recording at {path}")
        *lines, _ = path.read_text(encoding="utf-8").split("\n")  # what a kill cut off has no line end
        for number, line in enumerate(lines, 1):
            try:
                kept = json.loads(line)
                self._kept[kept["hash"]].append(reply_from_json(kept["reply"]))
                versions[kept["version"]] = None
                # A question is another one in another form, so it is asked in those that were recorded.
                self.forms = frozenset(name for name in ALL_FORMS if name in kept.get("forms", ALL_FORMS))
            except (ValueError, KeyError, TypeError):
                raise DataError.at(path, "a recorded reply", line=number, value=line[:40]) from None
        self.version = "; ".join(versions) or "replay/1"
        self.label = next((replies[0].model for replies in self._kept.values()), "replay")

    def reply(self, request: ChatRequest) -> ChatReply:
        with self._lock:
            replies = self._kept.get(request.hash)
            if not replies:
                raise EndpointError(f"{self.config.path} holds no reply to this request; record it with a model first")
            found = replies.popleft() if len(replies) > 1 else replies[0]
        return replace(found, replayed=True)

    def largest(self, request: ChatRequest) -> Usage:
        return NOTHING_USED

    def save(self, folder: Path) -> None:
        store.save(folder, self, config=self.config)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return store.open_folder(folder).begun(cls)
