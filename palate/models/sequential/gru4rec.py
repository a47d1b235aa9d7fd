"""GRU4Rec: a recurrent network reads the history event by event; its state is compared with every item.

Hidasi, Karatzoglou, Baltrunas and Tikk, "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016
(arXiv 1511.06939), with the item table shared by input and output and the losses of Hidasi and Karatzoglou,
"Recurrent Neural Networks with Top-k Gains for Session-based Recommendations", CIKM 2018 (arXiv 1706.03847).
Shapes: P packed events, D width of the item table, H hidden units, N items, R negatives.

Loss: cross entropy over all items at every position. ``sampled-softmax``, ``bpr-max`` and ``top1-max`` compare the
target with R negatives that a batch shares, drawn by popularity (``by_popularity``) or uniformly.
Masking: a negative that is the target does not count; other history items may be drawn. There are no pad rows.

Where we depart, and why:
- Full softmax is the default: it needs no sampling scheme, and where all items fit it is the stronger loss.
- Whole histories are read instead of session-parallel mini-batches, so no state is carried between batches; the
  negatives are drawn apart instead of taken from the batch, whose thousands of targets are more than is needed.
- AdamW instead of Adagrad; a linear layer leads from H to D, so that the table may be narrower than the state.
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
from torch.nn.utils.rnn import PackedSequence

from palate.core import store
from palate.core.config import Config, configure
from palate.core.dataset import Dataset
from palate.core.protocols import FloatArray, Judge, ScoresAll
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.space import Choice, Range, SearchSpace
from palate.data.batches import SequenceBatch, SequenceBatches
from palate.parts import losses
from palate.parts.dropout import Dropout
from palate.parts.negatives import Popularity
from palate.parts.packing import Packing
from palate.training.loop import optimise, seeded
from palate.training.settings import TrainingConfig
from palate.training.shell import fill_network, fitted, grow, identity, save_network, sequence_blocks


class GRU4RecConfig(Config):
    width: int = Field(64, ge=1)
    """Of the item table."""
    hidden: int = Field(128, ge=1)
    """Units of each recurrent layer."""
    layers: int = Field(1, ge=1)
    length: int = Field(100, ge=1)
    """The last so many events are read."""
    dropout: float = Field(0.4, ge=0, lt=1)
    loss: Literal["full-softmax", "sampled-softmax", "bpr-max", "top1-max"] = "full-softmax"
    negatives: int = Field(2048, ge=1)
    """Shared by a batch; full softmax uses none."""
    by_popularity: bool = True
    """Draw negatives by popularity (sampled softmax corrects for it), else uniformly."""
    score_decay: float = Field(1.0, ge=0)
    """BPR-max: weight of the squared scores of the negatives."""
    item_bias: bool = True
    """A learned offset for each item's score."""
    batch_size: int = Field(128, ge=1)
    windows: Literal["last", "all"] = "all"
    """Learn from the newest window of each history, or from all of it."""
    training: TrainingConfig = TrainingConfig(learning_rate=5e-3)


SPACE: SearchSpace = {
    "dropout": Range(0.1, 0.7),
    "hidden": Choice((64, 128, 256)),
    "length": Choice((50, 100, 200)),
    "training.learning_rate": Range(3e-4, 5e-3, log=True),
}
"""What ``--tune`` searches."""


def bpr_max(positive: Tensor, negative: Tensor, decay: float) -> Tensor:
    """``-log Σ_j w_j σ(s⁺ - s_j) + decay Σ_j w_j s_j²``, ``w`` = softmax of the negatives (2018, equation 10), mean
    over positions. positive ``[P]``, negative ``[P, R]``; -inf marks a negative that does not count."""
    log_weights = F.log_softmax(negative, dim=1)
    finite = negative.masked_fill(negative.isinf(), 0)
    gain = torch.logsumexp(log_weights + F.logsigmoid(positive[:, None] - finite), dim=1)
    return (-gain + decay * (log_weights.exp() * finite.square()).sum(1)).mean()


def top1_max(positive: Tensor, negative: Tensor) -> Tensor:
    """``Σ_j w_j (σ(s_j - s⁺) + σ(s_j²))``, ``w`` = softmax of the negatives (2018, equation 8), mean."""
    finite = negative.masked_fill(negative.isinf(), 0)
    terms = torch.sigmoid(finite - positive[:, None]) + torch.sigmoid(finite.square())
    return (F.softmax(negative, dim=1) * terms).sum(1).mean()


class Network(nn.Module):
    """Packed item rows ``[P]`` → states ``[P, D]``; state p is compared with the item table to predict event p + 1."""

    def __init__(self, config: GRU4RecConfig, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(n_items, config.width)
        widths = [config.width] + [config.hidden] * (config.layers - 1)
        self.recurrent = nn.ModuleList(nn.GRU(width, config.hidden) for width in widths)
        self.out = nn.Linear(config.hidden, config.width)
        self.bias = nn.Embedding(n_items, 1) if config.item_bias else None
        self.drop = Dropout(config.dropout)
        self.popularity = Popularity(n_items)
        nn.init.normal_(self.items.weight, std=config.width**-0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias.weight)

    @property
    def offsets(self) -> Tensor | None:
        """``[N]`` what is added to the items' scores."""
        return None if self.bias is None else self.bias.weight[:, 0]

    def forward(self, items: Tensor, packing: Packing) -> Tensor:
        x = self.drop(self.items(items))
        places, sizes = _by_step(packing)
        x = torch.empty_like(x).index_copy(0, places, x)
        for layer in self.recurrent:
            x = self.drop(layer(PackedSequence(x, sizes))[0].data)
        return self.out(x[places])


def _by_step(packing: Packing) -> tuple[Tensor, Tensor]:
    """Where each packed event goes when all first events come first, then all second ones (``[P]``), and how many
    histories have each step (``[T]``, CPU): the layout of torch's recurrent layers. No padding in between."""
    positions = packing.positions.cpu()
    sizes = torch.bincount(positions)
    row = torch.repeat_interleave(torch.arange(len(packing.lengths)), packing.lengths)
    return ((sizes.cumsum(0) - sizes)[positions] + row).to(packing.device), sizes


class GRU4Rec(ScoresAll):
    """The recommender: knows rows, fits, answers, saves. ``network`` is None until fitted or loaded."""

    def __init__(self, config: GRU4RecConfig | None = None) -> None:
        self.config = config or GRU4RecConfig()
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
        batches = SequenceBatches(
            train, length=config.length, batch_size=config.batch_size, seed=run.seed, windows=config.windows
        )
        look = None if judge is None else partial(judge, self)
        loss = partial(self._loss, network)
        outcome = optimise(network, batches, loss, run, config.training, look, identity=identity(config, train))
        self.facts = {"n_items": train.n_items, "fitted_on": train.fingerprint, "training": outcome.facts()}
        return self

    def _loss(self, network: Network, batch: SequenceBatch) -> Tensor:
        config, batch = self.config, batch.to(network.items.weight.device)
        assert batch.targets is not None
        states = network(batch.items, Packing(batch.lengths, network.items.weight.device))
        table, offsets = network.items.weight, network.offsets
        if config.loss == "full-softmax":
            return losses.full_softmax(states, table, batch.targets, offsets)
        negatives = network.popularity.draw((config.negatives,), by_popularity=config.by_popularity)
        positive, negative = losses.positive_and_negatives(states, table, batch.targets, negatives)
        if offsets is not None:
            positive, negative = positive + offsets[batch.targets], negative + offsets[negatives]
        if config.loss == "bpr-max":
            return bpr_max(positive, negative, config.score_decay)
        if config.loss == "top1-max":
            return top1_max(positive, negative)
        share = network.popularity.log_share
        log_q = (share[batch.targets], share[negatives]) if config.by_popularity else None
        return losses.sampled_softmax(positive, negative, log_q)

    def score_blocks(self, requests: Requests) -> Iterator[FloatArray]:
        network = fitted(self)

        def read(batch: SequenceBatch) -> Tensor:
            packing = Packing(batch.lengths, network.items.weight.device)
            return network(batch.items, packing)[packing.last]

        return sequence_blocks(
            requests, read=read, table=network.items.weight, bias=network.offsets,
            newcomer=network.popularity.log_share, length=self.config.length,
        )  # fmt: skip

    def save(self, folder: Path) -> None:
        save_network(folder, self)

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        system = cls(configure(GRU4RecConfig, stored.config))
        with seeded(Run()):  # its first weights are drawn, and the random state is the caller's
            system.network = Network(system.config, stored.facts["n_items"])
        system.facts = stored.facts
        fill_network(system.network, stored)
        return system


def tiny() -> GRU4RecConfig:
    """Learns on a laptop CPU in a minute."""
    return GRU4RecConfig(
        width=32, hidden=64, length=50, training=TrainingConfig(epochs=60, learning_rate=5e-3, patience=5)
    )
