"""A chat model of the hub, run here: any causal model with its chat template, any seq2seq model with plain text.

The network comes through the door of every other hub model (``backbones.hub``): safetensors, and no code of its folder
runs. A chat template is a text with places to fill in, rendered by the library in its sandbox. A model without one
reads the turns as plain lines.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from palate.backbones.hub import Hub, HubConfig
from palate.backbones.hub_files import hub_folder, quietly
from palate.core import store
from palate.core.chat import ChatReply, ChatRequest, Finish, Message, Usage
from palate.core.config import Config
from palate.core.errors import FormError, RefusedError
from palate.core.ragged import Ragged
from palate.core.run import Run

MARKS = 8
"""Tokens that a tokenizer adds at the ends of a text, at most."""
ROLES = {"system": "", "user": "User: ", "assistant": "Assistant: ", "tool": "Result: "}


class HubChatConfig(Config):
    model: str = Field(min_length=1)
    """A folder, or a name on the hub."""
    precision: Literal["fp32", "bf16"] = "fp32"
    download: bool = False
    """Fetch the model from the hub when it is not here."""
    device: str = "cpu"
    template: Literal["own", "plain"] = "own"
    """The model's own chat template where it has one, or plain lines."""
    max_prompt_tokens: int | None = Field(None, ge=1)
    """A longer prompt is refused; None = what the model's positions allow."""


class HubChat:
    """The chat model. The network is read at the first question; questions are answered one at a time."""

    config_type = HubChatConfig
    pretrained: Literal["LM"] = "LM"
    forms: frozenset[Literal["tools", "schema"]] = frozenset()

    def __init__(self, config: HubChatConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._hub: Hub | None = None
        self._template: Any = None

    @property
    def label(self) -> str:
        return self.config.model

    @property
    def version(self) -> str:
        return f"hub-chat/1 {self._ready().version} template={self.config.template}"

    def reply(self, request: ChatRequest) -> ChatReply:
        if request.tools or request.schema:
            raise FormError(f"{self.label} is run here and takes text alone")
        hub, prompt = self._ready(), self._prompt(request)
        began = time.monotonic()
        with self._lock:
            tokens, alternatives = self._generate(hub, prompt, request)
        [text] = hub.spell(Ragged.of([tokens]))
        finish: Finish = "length" if len(tokens) >= request.max_tokens else "stop"
        for stop in request.stop:
            if stop in text:
                text, finish = text[: text.index(stop)], "stop"
        return ChatReply(
            Message("assistant", text.strip()), finish, Usage(prompt.shape[1], len(tokens)),
            seconds=time.monotonic() - began, model=self.label, alternatives=alternatives,
        )  # fmt: skip

    def largest(self, request: ChatRequest) -> Usage:
        """Bytes of what is read stand for its tokens: of a request whose texts are not written yet, such as one that
        shows an answer again, no other count holds for all that may stand there."""
        self._ready()
        return Usage(len(self._shown(request.messages).encode()) + MARKS, request.max_tokens)

    def save(self, folder: Path) -> None:
        store.save(folder, self, config=self.config)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return store.open_folder(folder).begun(cls)

    def _ready(self) -> Hub:
        with self._lock:
            if self._hub is None:
                settings = HubConfig(
                    model=self.config.model, precision=self.config.precision, download=self.config.download
                )
                self._hub = Hub(settings).prepare([], Run(device=self.config.device))
                self._template = self._own_template()
            return self._hub

    def _own_template(self) -> Any:
        """The library's tokenizer where it holds a chat template, else None."""
        if self.config.template == "plain":
            return None
        from transformers import AutoTokenizer

        with quietly():
            found = AutoTokenizer.from_pretrained(
                hub_folder(self.config.model, self.config.download), local_files_only=True
            )
        return found if found.chat_template else None

    def _prompt(self, request: ChatRequest) -> Tensor:
        """``[1, S]`` ids of the whole question."""
        hub = self._ready()
        ids = hub.read([self._shown(request.messages)]).flat().tolist()
        if hub.kind == "seq2seq" and hub.tokenizer.end is not None:
            ids.append(hub.tokenizer.end)
        limit = self.config.max_prompt_tokens or getattr(hub.model.config, "max_position_embeddings", None)
        if limit is not None and len(ids) + (request.max_tokens if hub.kind == "causal" else 0) > limit:
            raise RefusedError(
                f"{self.label} reads {limit} tokens at most; this question has {len(ids)} and may be answered with "
                f"{request.max_tokens}"
            )
        return torch.tensor([ids], device=hub.model.device)

    def _shown(self, messages: Sequence[Message]) -> str:
        if self._template is not None:
            turns = [{"role": message.role, "content": message.content} for message in messages]
            return str(self._template.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        lines = [f"{ROLES[message.role]}{message.content}" for message in messages]
        if self._ready_kind() == "seq2seq" or len(messages) == 1:
            return "\n\n".join(message.content for message in messages)
        return "\n\n".join([*lines, ROLES["assistant"].strip()])

    def _ready_kind(self) -> str:
        assert self._hub is not None
        return self._hub.kind

    def _generate(self, hub: Hub, prompt: Tensor, request: ChatRequest) -> tuple[list[int], dict[str, float]]:
        """The ids written, and the likeliest first ones with their log-probabilities."""
        model, sampled = hub.model, request.temperature > 0
        devices = [model.device] if model.device.type == "cuda" else []
        with quietly(), torch.inference_mode(), torch.random.fork_rng(devices=devices):
            if sampled and request.seed is not None:
                torch.manual_seed(request.seed)
            out = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=request.max_tokens, do_sample=sampled,
                **({"temperature": request.temperature, "top_k": 0, "top_p": request.top_p} if sampled else {}),
                pad_token_id=hub.tokenizer.pad, return_dict_in_generate=True,
                output_logits=bool(request.alternatives), stopping_criteria=_stops(hub, prompt, request),
            )  # fmt: skip
        written = out.sequences[0, prompt.shape[1] if hub.kind == "causal" else 1 :].tolist()
        return written, _alternatives(hub, out.logits[0][0], request.alternatives) if request.alternatives else {}


def _stops(hub: Hub, prompt: Tensor, request: ChatRequest) -> list[Any]:
    """Ends the writing at a stop text."""
    if not request.stop:
        return []
    begin = prompt.shape[1] if hub.kind == "causal" else 1

    def stopped(ids: Tensor, scores: Any, **_: Any) -> Tensor:
        rows = Ragged.of([np.asarray(row) for row in ids[:, begin:].tolist()])
        found = [any(stop in text for stop in request.stop) for text in hub.spell(rows)]
        return torch.tensor(found, device=ids.device)

    return [stopped]


def _alternatives(hub: Hub, logits: Tensor, n: int) -> dict[str, float]:
    best = torch.log_softmax(logits.float(), -1).topk(min(n, len(logits)))
    words = hub.spell(Ragged.of([[i] for i in best.indices.tolist()]))
    told: dict[str, float] = {}
    for word, value in zip(words, best.values.tolist(), strict=True):
        told.setdefault(word, value)  # two tokens may read alike; the likelier counts
    return told
