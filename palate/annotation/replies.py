"""A chat model whose replies are kept in a ledger: the same question is paid for once, whoever asks it again.

For questions whose answers are read where they are asked, and are no records of a table. What was answered before a
failure or a kill is there at the next attempt; a call that may exceed the ledger's budget is not made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from palate.annotation.ledger import Budget, Entry, Ledger, now
from palate.core.chat import ChatReply, ChatRequest, reply_from_json, reply_to_json
from palate.core.config import Config
from palate.core.errors import EndpointError
from palate.core.protocols import ChatModel


class KeepingConfig(Config):
    """Settings of a system that asks a chat model: where answers are kept and what they may cost."""

    ledger: str | None = "answers.sqlite"
    """The file in which a chat model's answers are kept, so that none is paid for twice; None keeps none."""
    budget_tokens: int | None = Field(None, ge=1)
    """What all calls of the ledger together may use."""
    budget_money: float | None = Field(None, gt=0)
    """In the money of the chat model's prices."""

    @model_validator(mode="after")
    def _kept(self) -> Self:
        if self.ledger is None and (self.budget_tokens is not None or self.budget_money is not None):
            raise ValueError("a budget is kept in the ledger: name one, or drop the budget")
        return self

    @contextmanager
    def keeping(self, chat: ChatModel, prompt: str) -> Iterator[ChatModel | KeptReplies]:
        """``chat`` through its ledger. A scripted one costs nothing and may answer otherwise the next time."""
        if self.ledger is None or chat.pretrained == "no":
            yield chat
            return
        with Ledger(Path(self.ledger).expanduser(), Budget(self.budget_tokens, self.budget_money)) as ledger:
            yield KeptReplies(chat, ledger, prompt)

    def once(self, chat: ChatModel, prompt: str, request: ChatRequest) -> ChatReply:
        """One reply of ``chat`` through its ledger."""
        with self.keeping(chat, prompt) as kept:
            return kept.reply(request)


class KeptReplies:
    """``model`` through ``ledger``. Threads share it. ``prompt`` names the wording, for whoever reads the ledger."""

    def __init__(self, model: ChatModel, ledger: Ledger, prompt: str) -> None:
        self.model, self.ledger, self.prompt = model, ledger, prompt

    def reply(self, request: ChatRequest) -> ChatReply:
        """The reply that is kept, else a new one. Raises ``BudgetError`` before a call that may cost too much."""
        key = hashlib.blake2b(f"{self.model.version}\0{request.hash}".encode(), digest_size=16).hexdigest()
        kept = self.ledger.kept([key]).get(key)
        if kept is not None and kept.record is not None:
            return reply_from_json(kept.record)
        largest = self.model.largest(request)
        call = self.ledger.book(key, largest)
        try:
            found = self.model.reply(request)
        except EndpointError as failure:
            self.ledger.settle(call, largest, largest if failure.lost is None else failure.lost, None)
            raise
        except BaseException:
            self.ledger.settle(call, largest, largest, None)
            raise
        used = found.charged
        entry = Entry(
            key, reply_to_json(found), "", self.model.version, self.prompt, now(), used, found.tries, "reply"
        )  # fmt: skip
        self.ledger.settle(call, largest, used, entry)
        return found
