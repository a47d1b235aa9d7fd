"""BERT4Rec: attention in both directions; some events are hidden and each is guessed from those on either side.

Sun, Liu, Wu, Pei, Lin, Ou and Jiang, "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations
from Transformer", CIKM 2019 (arXiv 1904.06690). To recommend, a hidden event is set after the history and guessed.
Shapes: P packed events, M hidden ones among them, D width, N items.

Loss: cross entropy over all items at the hidden positions alone (the cloze task), no negatives. Masking: each event
is hidden with probability ``mask_share``, at least one in every history; ``last_share`` of the histories hide their
last event alone, as the question will. Which events are hidden is drawn anew in every epoch. There are no pad rows.
It learns slowly, since few positions teach at a time: Petrov and Macdonald, "A Systematic Review and Replicability
Study of BERT4Rec", RecSys 2022 (arXiv 2207.07483), show that published comparisons stopped it too early, by up to
30 times. Hence many epochs and long patience by default; a shorter run says nothing about the method.

Where we depart, and why:
- Positions count back from the end, so that the hidden event to guess always stands at the same place.
- First weights by Xavier instead of normal with deviation 0.02, from which it may not find the pattern at all.
- A history of one event teaches nothing: there is nothing to guess it from.
- No decay of the learning rate, because early stopping ends training.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from palate.core import store
from palate.core.config import Config, configure
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError
from palate.core.protocols import FloatArray, Judge, ScoresAll
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.space import Choice, Range, SearchSpace
from palate.data.batches import SequenceBatch, SequenceBatches
from palate.parts import losses
from palate.parts.dropout import Dropout
from palate.parts.negatives import Popularity
from palate.parts.packing import Packing, attention
from palate.training.loop import optimise, seeded
from palate.training.settings import TrainingConfig
from palate.training.shell import fill_network, fitted, grow, identity, save_network, sequence_blocks


class BERT4RecConfig(Config):
    width: int = Field(64, ge=1)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    length: int = Field(100, ge=2)
    """Events in a window, the hidden one at its end included."""
    dropout: float = Field(0.4, ge=0, lt=1)
    """Of embeddings, attention weights and feed-forward layers alike."""
    mask_share: float = Field(0.3, gt=0, le=1)
    last_share: float = Field(0.2, ge=0, le=1)
    """Share of the training windows in which only the last event is hidden."""
    batch_size: int = Field(128, ge=1)
    windows: Literal["last", "all"] = "all"
    """Learn from the newest window of each history, or from all of it."""
    training: TrainingConfig = TrainingConfig(
        epochs=1000, learning_rate=2e-3, warmup_steps=100, patience=15, judge_every=5
    )


SPACE: SearchSpace = {
    "dropout": Range(0.1, 0.5),
    "mask_share": Range(0.1, 0.6),
    "layers": Range(1, 3, whole=True),
    "length": Choice((50, 100, 200)),
    "training.learning_rate": Range(5e-4, 3e-3, log=True),
}
"""What ``--tune`` searches."""


class Block(nn.Module):
    """``[P, D]`` → ``[P, D]``: attention and a feed-forward layer, each with its residual and then LayerNorm."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.forward_1, self.forward_2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm_attention, self.norm_forward = nn.LayerNorm(width, eps=1e-8), nn.LayerNorm(width, eps=1e-8)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        p, d = x.shape
        q, k, v = self.query_key_value(x).view(p, 3, self.heads, d // self.heads).unbind(1)
        mixed = attention(q, k, v, packing, causal=False, drop=self.drop).reshape(p, d)
        x = self.norm_attention(x + self.drop(self.out(mixed)))
        return self.norm_forward(x + self.drop(self.forward_2(F.gelu(self.forward_1(x)))))


class Network(nn.Module):
    """Packed item rows ``[P]`` and which of them are hidden → what is guessed at the hidden ones, ``[M, D]``."""

    def __init__(self, config: BERT4RecConfig, n_items: int) -> None:
        super().__init__()
        if config.width % config.heads:
            raise ConfigError(f"width {config.width} cannot be shared equally by {config.heads} heads")
        self.config = config
        self.items = nn.Embedding(n_items, config.width)
        # No row of the item table, so that the catalogue can grow.
        self.mask = nn.Parameter(torch.empty(1, config.width))
        self.positions = nn.Embedding(config.length, config.width)
        self.norm = nn.LayerNorm(config.width, eps=1e-8)
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.dropout) for _ in range(config.layers))
        self.guess, self.norm_guess = nn.Linear(config.width, config.width), nn.LayerNorm(config.width, eps=1e-8)
        self.bias = nn.Embedding(n_items, 1)
        self.drop = Dropout(config.dropout)
        self.popularity = Popularity(n_items)
        for module in self.modules():
            if isinstance(module, (nn.Embedding, nn.Linear)):
                nn.init.xavier_normal_(module.weight)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        nn.init.xavier_normal_(self.mask)
        nn.init.zeros_(self.bias.weight)

    @property
    def offsets(self) -> Tensor:
        """``[N]`` what is added to the items' scores."""
        return self.bias.weight[:, 0]

    def forward(self, items: Tensor, hidden: Tensor, packing: Packing) -> Tensor:
        x = torch.where(hidden[:, None], self.mask, self.items(items))
        x = self.drop(self.norm(x + self.positions(packing.places_from_end(self.config.length))))
        for block in self.blocks:
            x = block(x, packing)
        return self.norm_guess(F.gelu(self.guess(x[hidden])))


def with_one_more(items: Tensor, lengths: Tensor, more: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Each history with one event after it, ``[P + b]``; the new lengths ``[b]``; which events are the new ones.

    ``more`` ``[b]`` are the item rows to add; None adds a place that only a hidden event may take.
    """
    b = len(lengths)
    longer = lengths + 1
    last = torch.zeros(len(items) + b, dtype=torch.bool)
    last[longer.cumsum(0) - 1] = True
    last = last.to(items.device)
    joined = items.new_zeros(len(last))
    joined[~last] = items
    if more is not None:
        joined[last] = more
    return joined, longer, last


def draw_hidden(packing: Packing, mask_share: float, last_share: float) -> Tensor:
    """``[P]`` which events are hidden, from torch's present random state; at least one in each history."""
    lengths = packing.lengths
    row = torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(packing.device)
    lot = torch.rand(len(row), device=packing.device)
    least = torch.ones(len(lengths), device=packing.device).scatter_reduce(0, row, lot, "amin")
    hidden = (lot < mask_share) | (lot == least[row])
    last_alone = (torch.rand(len(lengths), device=packing.device) < last_share)[row]
    last = torch.zeros_like(hidden)
    last[packing.last] = True
    return torch.where(last_alone, last, hidden)


class BERT4Rec(ScoresAll):
    """The recommender: knows rows, fits, answers, saves. ``network`` is None until fitted or loaded."""

    def __init__(self, config: BERT4RecConfig | None = None) -> None:
        self.config = config or BERT4RecConfig()
        self.network: Network | None = None
        self.facts: dict[str, Any] = {}

    def fit(self, train: Dataset, run: Run, judge: Judge | None = None) -> Self:
        with seeded(run):
            self.network = Network(self.config, train.n_items).to(run.device)
            return self._learn(train, run, judge)

    def continue_fit(self, train: Dataset, run: Run, judge: Judge | None = None) -> Self:
        """Go on from the present weights; items that are new begin as untrained rows."""
        with seeded(run):
            self.network = grow(Network(self.config, train.n_items), fitted(self)).to(run.device)
            return self._learn(train, run, judge)

    def _learn(self, train: Dataset, run: Run, judge: Judge | None) -> Self:
        config = self.config
        network = fitted(self)
        network.popularity.count(train.item_counts)
        # A window of these batches is one event short: its last target completes it.
        batches = SequenceBatches(
            train, length=config.length - 1, batch_size=config.batch_size, seed=run.seed, windows=config.windows
        )
        look = None if judge is None else partial(judge, self)
        loss = partial(self._loss, network)
        outcome = optimise(network, batches, loss, run, config.training, look, identity=identity(config, train))
        self.facts = {"n_items": train.n_items, "fitted_on": train.fingerprint, "training": outcome.facts()}
        return self

    def _loss(self, network: Network, batch: SequenceBatch) -> Tensor:
        batch = batch.to(network.items.weight.device)
        assert batch.targets is not None
        ends = (batch.lengths.cumsum(0) - 1).to(batch.items.device)
        items, lengths, _ = with_one_more(batch.items, batch.lengths, batch.targets[ends])
        packing = Packing(lengths, items.device)
        hidden = draw_hidden(packing, self.config.mask_share, self.config.last_share)
        guesses = network(items, hidden, packing)
        return losses.full_softmax(guesses, network.items.weight, items[hidden], network.offsets)

    def score_blocks(self, requests: Requests) -> Iterator[FloatArray]:
        network = fitted(self)

        def read(batch: SequenceBatch) -> Tensor:
            lengths = batch.lengths[batch.lengths > 0]
            items, longer, last = with_one_more(batch.items, lengths)
            return network(items, last, Packing(longer, items.device))

        return sequence_blocks(
            requests, read=read, table=network.items.weight, bias=network.offsets,
            newcomer=network.popularity.log_share, length=self.config.length - 1,
        )  # fmt: skip

    def save(self, folder: Path) -> None:
        save_network(folder, self)

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        system = cls(configure(BERT4RecConfig, stored.config))
        with seeded(Run()):  # its first weights are drawn, and the random state is the caller's
            system.network = Network(system.config, stored.facts["n_items"])
        system.facts = stored.facts
        fill_network(system.network, stored)
        return system


def tiny() -> BERT4RecConfig:
    """Learns on a laptop CPU in a minute or two."""
    return BERT4RecConfig(
        width=32,
        length=50,
        dropout=0.2,
        training=TrainingConfig(epochs=300, learning_rate=2e-3, warmup_steps=50, patience=6, judge_every=5),
    )
