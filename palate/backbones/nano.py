"""nano: a small language model for everybody, taught on the data's own text and on nothing else.

A decoder in the shape of Llama (Touvron et al. 2023, arXiv 2302.13971: RMSNorm, rotary positions, SwiGLU, no biases),
with input and output table tied, and a text tokenizer taught on the same text. It stands in for a pre-trained language
model where there is none: what it does is the system's own doing, what it knows is not. Tables therefore show it as
``pretrained: no``. Texts are joined and cut into blocks, which may hold several. They are learnt token by token, or
with ``objective="masked"`` by filling in what is hidden of them (Devlin et al. 2019, arXiv 1810.04805): then every
token sees every other, and the model only reads.

What it becomes follows from the texts, whatever their order, and from its settings, so it is taught once and kept in
the cache; random numbers come from its own seed, so whether it was kept changes nothing after it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from palate.backbones.cache import cache, digest
from palate.backbones.text_model import Optimise, TextModel, TuneConfig, build_network
from palate.backbones.text_tokenizer import TextTokenizer
from palate.core import store
from palate.core.config import AttentionConfig
from palate.core.errors import StoreError, TrainingError
from palate.core.ragged import IntArray, Ragged
from palate.core.run import Run
from palate.core.training import TrainingConfig

SHAPE = 1
"""Raised when code below makes another model of the same settings and texts."""


class NanoConfig(AttentionConfig, TuneConfig):
    width: int = Field(192, ge=8)
    heads: int = Field(4, ge=1)
    layers: int = Field(4, ge=1)
    forward_width: int = Field(512, ge=8)
    """Inside the feed-forward layers."""
    length: int = Field(2048, ge=8)
    """Tokens that it may read at once."""
    vocabulary: int = Field(4096, ge=300)
    """Text tokens at most."""
    steps: int = Field(200, ge=0)
    """Of teaching. 0 = as drawn."""
    block: int = Field(128, ge=8)
    """Tokens of one block of teaching."""
    batch_size: int = Field(8, ge=1)
    """Blocks a step."""
    objective: Literal["next-token", "masked"] = "next-token"
    """What teaching asks for: each token from those before it, or hidden ones from all others."""
    hidden: float = Field(0.15, gt=0, lt=1)
    """Share of tokens that ``masked`` asks for."""
    seed: int = 0
    """Of first weights and order of texts; a run's own seed changes nothing here."""
    pretraining: TrainingConfig = TrainingConfig(
        epochs=100_000, learning_rate=2e-3, weight_decay=0.01, warmup_steps=20, clip_norm=1.0, patience=1
    )

    @model_validator(mode="after")
    def _heads_can_turn(self) -> Self:
        if self.width // self.heads % 2:
            raise ValueError(f"rotary positions need heads of an even width, not {self.width // self.heads}")
        return self


class Blocks:
    """Batches ``[batch_size, block]`` of token ids: the texts in a new order each epoch, one after another.

    A pure function of (seed, epoch). What does not fill a block is left for an epoch of another order; fewer tokens
    than one block make one shorter block.
    """

    def __init__(self, texts: Ragged, block: int, batch_size: int, seed: int) -> None:
        self.texts, self.batch_size, self.seed = texts, batch_size, seed
        total = int(texts.lengths.sum())
        self.block = min(block, total)
        self.blocks = total // self.block

    def __len__(self) -> int:
        return -(-self.blocks // self.batch_size)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Tensor]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.texts))
        stream = self.texts[order].flat()[: self.blocks * self.block].astype(np.int64)
        blocks = torch.from_numpy(stream.reshape(self.blocks, self.block))
        for start in range(skip * self.batch_size, self.blocks, self.batch_size):
            yield blocks[start : start + self.batch_size]


class MaskedBlocks:
    """The batches of ``blocks`` with tokens to fill in: what is read ``[b, S]``, and what is asked for ``[b, S]``, -1
    where nothing is. A pure function of (seed, epoch).

    Of ``share`` of the tokens four fifths are hidden behind ``mask``, a tenth are others drawn among ``words``, a tenth
    stay as they are; ``kept`` ids are never asked for. Every block asks for one token at least.
    """

    def __init__(self, blocks: Blocks, *, share: float, mask: int, kept: Sequence[int], words: IntArray) -> None:
        self.blocks, self.share, self.mask, self.kept, self.words = blocks, share, mask, list(kept), words

    def __len__(self) -> int:
        return len(self.blocks)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for place, ids in enumerate(self.blocks.epoch(epoch, skip), start=skip):
            rng = np.random.default_rng([self.blocks.seed, epoch, place])
            read, asked = self.hide(ids.numpy(), rng)
            yield torch.from_numpy(read), torch.from_numpy(asked)

    def hide(self, ids: IntArray, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        """Of one batch."""
        lot = np.where(np.isin(ids, self.kept), 2.0, rng.random(ids.shape))
        chosen = (lot < self.share) | (lot == lot.min(1, keepdims=True)) & (lot < 1)
        how = rng.random(ids.shape)
        instead = np.where(how < 0.8, self.mask, np.where(how < 0.9, rng.choice(self.words, ids.shape), ids))
        return np.where(chosen, instead, ids), np.where(chosen, ids, -1)


class TaughtHere(TextModel[NanoConfig]):
    """What nano is, wherever its weights come from."""

    config_type = NanoConfig
    pretrained: Literal["no"] = "no"

    @property
    def kind(self) -> Literal["causal", "encoder"]:
        return "encoder" if self.config.objective == "masked" else "causal"

    def states(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        if self.kind == "causal":
            return super().states(embeddings, mask)
        return states_both_ways(self.model, embeddings, mask)


class Nano(TaughtHere):
    """The language model. ``folder`` is where taught ones are kept, by default that of ``cache``."""

    def __init__(self, config: NanoConfig | None = None, folder: Path | None = None) -> None:
        super().__init__(config)
        self.folder = folder

    def prepare(
        self, texts: Sequence[str], run: Run, optimise: Optimise | None = None, *, fitted_on: str = store.NO_DATA
    ) -> Self:
        """Taught on ``texts`` by ``optimise``, or taken from the cache. ``run`` gives device, progress, and with
        ``max_steps`` fewer steps; neither its seed nor its budget matters. Adapters follow torch's random state."""
        texts = sorted({text for text in texts if text})
        steps = self.config.steps if run.max_steps is None else min(self.config.steps, run.max_steps)
        key = self._key(texts, steps)
        kept = (self.folder or cache("language-models")) / key
        taught = self._kept(kept)
        if taught is None:
            taught = Taught(self.config.model_copy(update={"tune": "full", "steps": steps}))
            taught.teach(texts, run, optimise)
            taught.version, taught._fitted_on = f"nano/{SHAPE} {key}", fitted_on
            kept.parent.mkdir(parents=True, exist_ok=True)
            taught.save(kept)
        self.version, self._fitted_on = taught.version, fitted_on
        self._begin(taught.model.to(run.device), taught.tokenizer)
        return self

    def _key(self, texts: Sequence[str], steps: int) -> str:
        """Everything that what is taught follows from; how it is tuned later is no part of it."""
        idle = {"objective", "hidden"} if self.config.objective == "next-token" else set()
        settings = self.config.model_dump_json(exclude={*TuneConfig.model_fields, "steps", *idle})
        return digest([f"nano/{SHAPE} {steps}", settings, *texts])

    @staticmethod
    def _kept(folder: Path) -> Taught | None:
        if not folder.exists():
            return None
        try:
            return Taught.load(folder)
        except StoreError:
            shutil.rmtree(folder, ignore_errors=True)
            return None


class Taught(TaughtHere):
    """nano as it is kept in the cache: nothing added, nothing tuned."""

    def prepare(
        self, texts: Sequence[str], run: Run, optimise: Optimise | None = None, *, fitted_on: str = store.NO_DATA
    ) -> Self:
        self.teach(texts, run, optimise)
        return self

    def teach(self, texts: Sequence[str], run: Run, optimise: Optimise | None) -> None:
        """Tokenizer and weights from ``texts``. The caller's random state is untouched."""
        tokenizer = TextTokenizer.taught(texts, self.config.vocabulary, mask=self.kind == "encoder")
        devices = [torch.device(run.device)] if run.device.startswith("cuda") else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.config.seed)
            model = build_network(self._architecture(tokenizer)).to(run.device)
            self._begin(model, tokenizer)
            if self.config.steps:
                if optimise is None:
                    raise TrainingError("nano must be taught first: call prepare with the training loop")
                batches, loss = self._lesson(tokenizer, texts)
                quiet = replace(  # in fp32: who filled the cache must not decide what others find there
                    run, precision="fp32", seed=self.config.seed, max_steps=self.config.steps, folder=None,
                    resume=False, budget_seconds=None,
                )  # fmt: skip
                optimise(model, batches, loss, quiet, self.config.pretraining)
            model.eval()

    def _lesson(self, tokenizer: TextTokenizer, texts: Sequence[str]) -> tuple[Any, Callable[[Any], Tensor]]:
        config, model = self.config, self.model
        blocks = Blocks(ended(tokenizer, texts), config.block, config.batch_size, config.seed)
        if self.kind == "causal":
            return blocks, lambda ids: next_token_loss(model, ids)
        assert tokenizer.mask is not None
        kept = [i for i in (tokenizer.pad, tokenizer.start, tokenizer.end, tokenizer.mask) if i is not None]
        words = np.setdiff1d(np.arange(tokenizer.size), kept)
        batches = MaskedBlocks(blocks, share=config.hidden, mask=tokenizer.mask, kept=kept, words=words)
        return batches, lambda batch: masked_token_loss(model, *batch)

    def _architecture(self, tokenizer: TextTokenizer) -> dict[str, Any]:
        config = self.config
        return {
            "model_type": "llama", "vocab_size": tokenizer.size, "hidden_size": config.width,
            "intermediate_size": config.forward_width, "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads, "num_key_value_heads": config.heads,
            "max_position_embeddings": config.length, "tie_word_embeddings": True,
            "bos_token_id": tokenizer.start, "eos_token_id": tokenizer.end, "pad_token_id": tokenizer.pad,
        }  # fmt: skip


def ended(tokenizer: TextTokenizer, texts: Sequence[str]) -> Ragged:
    """The tokens of each text and the end."""
    tokens = tokenizer.read(texts)
    return tokens.joined(Ragged.from_lengths(np.full(len(texts), tokenizer.end), np.ones(len(texts), np.int64)))


def next_token_loss(model: Any, ids: Tensor) -> Tensor:
    """Mean over the tokens of ``[b, S]`` but the first of each row."""
    ids = ids.to(model.device)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


def masked_token_loss(model: Any, read: Tensor, asked: Tensor) -> Tensor:
    """Mean over the tokens of ``asked`` ``[b, S]`` that are not -1, from ``read`` ``[b, S]``."""
    read, asked = read.to(model.device), asked.to(model.device)
    wanted = asked >= 0
    states = states_both_ways(model, model.get_input_embeddings()(read), torch.ones_like(wanted))
    return F.cross_entropy(model.get_output_embeddings()(states[wanted]).float(), asked[wanted])


def states_both_ways(model: Any, embeddings: Tensor, mask: Tensor) -> Tensor:
    """``[b, S, D]``, ``[b, S]`` → ``[b, S, D]`` where every token sees every other that is no padding."""
    places = (mask.long().cumsum(1) - 1).clamp(min=0)
    # Padding sees itself, for a softmax over nothing is no number.
    seen = mask.bool()[:, None, :] | torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    hidden = torch.zeros(seen.shape, dtype=embeddings.dtype, device=seen.device)
    hidden.masked_fill_(~seen, torch.finfo(hidden.dtype).min)
    out = model.base_model(
        inputs_embeds=embeddings, attention_mask=hidden[:, None], position_ids=places, use_cache=False
    )
    return out.last_hidden_state
