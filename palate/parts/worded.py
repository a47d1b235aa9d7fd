"""What systems share that read words and a history as one input, and answer with the name of an item.

Mender (Paischer et al. 2025, arXiv 2412.08604): whatever reads, its states are lifted to the width of a decoder that is
trained from scratch and says the name token by token. Shapes: P packed states, b inputs, T tokens of a name, D width of
what was read, d width of the decoder, V tokens of the vocabulary, N items.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from hashlib import sha256 as digest
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from palate.core.config import Config, Part
from palate.core.dataset import Dataset
from palate.core.protocols import Discerner, FloatArray, ItemTokenizer, Sentiment
from palate.core.ragged import Ragged
from palate.core.rankings import Rankings
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.space import Choice, Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.worded import Lessons, WordedBatch, WordedBatches, lessons
from palate.parts.naming import Naming, needs_end
from palate.parts.packing import Packing
from palate.parts.t5 import T5, T5Config, T5Speaker, paced

START, END, FIRST = 0, 1, 2
"""Rows of the vocabulary: the decoder's start, the end of a name, the first token of names."""


class WordedConfig(Config):
    """Settings of both systems."""

    tokenizer: Part = Part(name="rq-vae")
    """What names the items."""
    annotator: Part = Part(name="extractive")
    """What writes, event by event, what a user would search for."""
    sentiment: Part = Part(name="lexicon")
    """What tells positive sentences and reviews from negative ones."""
    encoder: Part = Part(name="auto")
    """What makes the vectors by which sentences and items are matched."""
    match: Literal["title", "text"] = "text"
    """What of the next item a sentence is matched with, in training alone."""
    network: T5Config = T5Config()
    """The decoder; it has no encoder of its own."""
    length: int = Field(20, ge=1)
    """The last so many items are read."""
    prefixes: Literal["all", "one"] = "all"
    """Targets of an epoch: every event, or one of each user, drawn anew."""
    blank: float = Field(0.25, ge=0, le=1)
    """Share of the events that are learnt without words, so that requests without any are answered."""
    alone: float = Field(0.1, ge=0, le=1)
    """Share of the others that are learnt without their history, so that newcomers with a wish are answered."""
    steered: float = Field(0.0, ge=0)
    """Examples that steer (fine and coarse pairs of the train part) beside each event."""
    complained: float = Field(0.0, ge=0)
    """Examples of complaints beside each event: a refusal against its item, the refusal turned round for it."""
    shuffled: bool = False
    """Each event is learnt with the sentence of another: a control, in which words say nothing."""
    temperature: float = Field(1.0, gt=0)
    """Divides the logits in training."""
    beam: int = Field(20, ge=1)
    batch_size: int = Field(256, ge=1)
    training: TrainingConfig = TrainingConfig(
        epochs=200, learning_rate=1e-3, weight_decay=0.01, warmup_steps=100, judge_every=2, patience=10
    )

    @field_validator("network")
    @classmethod
    def _only_decodes(cls, network: T5Config) -> T5Config:
        if network.reads != "both-ways":
            raise ValueError("the network here only decodes: reads must stay both-ways")
        return network


SPACE: SearchSpace = {
    "network.dropout": Range(0.05, 0.4),
    "network.layers": Range(2, 6, whole=True),
    "blank": Range(0.0, 0.5),
    "length": Choice((10, 20)),
    "training.learning_rate": Range(1e-4, 3e-3, log=True),
}
"""What ``--tune`` searches in both systems."""


def published() -> dict[str, Any]:
    """What the published settings of both systems have in common: sentence vectors of T5, three codes of 256 and a
    counter, a decoder of six layers."""
    model = "sentence-transformers/sentence-t5-xxl"
    text = {"fields": ["title", "price", "brand", "category"]}
    names = {"hidden": [768, 512, 256], "width": 128, "encoder": {"name": "hub", "model": model}, "text": text}
    return {
        "tokenizer": Part(name="rq-vae", preset="paper", settings=names),
        "encoder": Part(name="hub", settings={"model": model}),
        "sentiment": Part(name="hub", settings={"model": "siebert/sentiment-roberta-large-english"}),
        "match": "title", "blank": 0.1, "alone": 0.0,
        "network": T5Config(width=128, layers=6, heads=6, head_width=64, forward_width=1024, dropout=0.2),
    }  # fmt: skip


class NameDecoder(nn.Module):
    """``ended``: each name ends with an end token."""

    def __init__(self, config: T5Config, n_tokens: int, ended: bool, width: int) -> None:
        """``width`` is that of what is read."""
        super().__init__()
        self.ended = ended
        self.lift = nn.Linear(width, config.width) if width != config.width else nn.Identity()
        self.t5 = T5(config, FIRST + n_tokens)
        for part in ("encoder", "encoder_distances", "encoder_norm"):  # others have read already
            delattr(self.t5, part)

    @property
    def device(self) -> torch.device:
        return self.t5.tokens.weight.device

    def loss(
        self, memory: Tensor, packing: Packing, names: Tensor, against: Tensor, temperature: float = 1.0
    ) -> Tensor:  # fmt: skip
        """``-log p`` of the tokens of ``names`` ``[b, T]``, mean over tokens; of those that must not be said
        (``against`` ``[b]``) ``-log(1 - p)`` of the whole name, weighed by their share. ``memory`` ``[P, d]``."""
        states = self.t5.states(names, memory, packing) / temperature
        said = names >= 0
        costs = F.cross_entropy((states[said] @ self.t5.table.T).float(), names[said], reduction="none")
        row = said.nonzero()[:, 0]
        wanted = ~against[row]
        loss = costs[wanted].sum() / wanted.sum().clamp(min=1)
        if bool(against.any()):
            whole = torch.zeros(len(names), device=costs.device).index_add_(0, row, costs)[against]
            unlikely = -torch.log1p(-torch.exp(-whole).clamp(max=1 - 1e-6))
            loss = loss + against.float().mean() * unlikely.mean()
        return loss


class SaysNames(ABC):
    """Learns from examples with words and answers by beam search over the live names. The system sets ``tokenizer``,
    ``annotator``, ``sentiment``, ``config``, ``network`` and ``facts``."""

    tokenizer: ItemTokenizer
    annotator: Discerner
    sentiment: Sentiment
    config: Any
    network: Any
    facts: dict[str, Any]
    _named: tuple[object, Naming] | None = None

    # -- learning ----------------------------------------------------------------------------------------------------

    @property
    def training(self) -> TrainingConfig:
        return paced(self.config.training, self.config.network, "decoder.t5")

    def name_all(self, train: Dataset, run: Run) -> None:
        """Names of all items: anew, or of those that are new where the system goes on."""
        if self.network is None:
            self.tokenizer.fit(train, run.inside("tokenizer", share=0.25))
        else:
            self.tokenizer.add(train)

    def written(
        self, train: Dataset, seed: int, items: FloatArray, wanted: FloatArray,
        encode: Callable[[Sequence[str]], FloatArray],
    ) -> Lessons:  # fmt: skip
        """See ``data.worded.lessons``."""
        config = self.config
        return lessons(
            train, self.annotator, self.sentiment, encode, items=items, wanted=wanted, steered=config.steered,
            complained=config.complained, shuffled=config.shuffled, seed=seed,
        )  # fmt: skip

    @property
    def ended(self) -> bool:
        """Whether names end with an end token: from the first fit on, as it was then."""
        if self.network is not None:
            return bool(self.network.decoder.ended)
        return needs_end(self.tokenizer.codes)

    @property
    def names_digest(self) -> str:
        """What tells these names from others."""
        return digest(self.tokenizer.codes.tokens.tobytes()).hexdigest()

    def batches(self, train: Dataset, taught: Lessons, seed: int) -> WordedBatches:
        config = self.config
        return WordedBatches(
            taught.main, train.user_rows, taught.others, length=config.length, batch_size=config.batch_size,
            seed=seed, prefixes=config.prefixes, blank=config.blank, alone=config.alone,
        )  # fmt: skip

    def cost(self, batch: WordedBatch, memory: Tensor, packing: Packing, order: Tensor) -> Tensor:
        """See ``NameDecoder.loss``; ``order`` ``[b]`` says which example of ``batch`` each packed input is."""
        device = self.decoder.device
        names, against = self.naming.tokens[batch.targets[order].to(device)], batch.against[order].to(device)
        return self.decoder.loss(memory, packing, names, against, self.config.temperature)

    # -- answering ---------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def decoder(self) -> NameDecoder:
        """The fitted one, else one clear sentence."""

    @abstractmethod
    def _speak(self, requests: Requests) -> T5Speaker:
        """Ready to answer these requests."""

    @property
    def reads_words(self) -> bool:
        """Words of a request are read, always."""
        return True

    @property
    def naming(self) -> Naming:
        """The live catalogue in the decoder's vocabulary, made anew when names or decoder have changed."""
        decoder, codes = self.decoder, self.tokenizer.codes
        state = (codes, decoder, decoder.device)
        if self._named is None or self._named[0] != state:
            names = np.where(codes.tokens >= 0, codes.tokens + FIRST, -1)
            end = END if decoder.ended else None
            vocabulary = len(decoder.t5.tokens.weight)
            self._named = state, Naming(names, vocabulary, codes.live, end=end, device=decoder.device)
        return self._named[1]

    def recommend(self, requests: Requests, k: int) -> Rankings:
        """The best ``k`` that the beam finds, at least ``k`` wide."""
        return self.naming.recommend(requests, k, self._speak, beam=self.config.beam)

    def score(self, requests: Requests, candidates: Ragged) -> npt.NDArray[np.float32]:
        """``[sum of C]`` log-probabilities of the candidates' names; NaN for an item that has none or was retired."""
        return self.naming.score(requests, candidates, self._speak, self.tokenizer.codes.live)

    def name_more(self, catalogue: Dataset) -> None:
        """Name what is new in ``catalogue``. A token that no name had before begins as the mean of the others."""
        self.tokenizer.add(catalogue)
        shape, n_tokens = self.facts["shape"], len(self.tokenizer.codes.vocabulary)
        if n_tokens > shape["n_tokens"]:
            self.decoder.t5.widen(n_tokens - shape["n_tokens"])
        self.facts = self.facts | {"shape": shape | {"n_tokens": n_tokens, "n_items": catalogue.n_items}}

    def retire_items(self, item_rows: npt.NDArray[np.integer], *, back: bool = False) -> None:
        """Never answer these items, or answer them again."""
        self.tokenizer.retire(item_rows, back=back)


def by_length(counts: Tensor) -> Tensor:
    """``[b]`` the order in which packed inputs of ``counts`` tokens stand: longest first, equals as they were."""
    return torch.argsort(-counts, stable=True)
