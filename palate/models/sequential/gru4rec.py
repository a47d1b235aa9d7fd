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

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from palate.core.config import Config
from palate.core.space import Choice, Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.batches import SequenceBatch
from palate.parts import losses
from palate.parts.dropout import Dropout
from palate.parts.negatives import Popularity
from palate.parts.packing import Packing
from palate.training.sequences import SequenceNetwork, SequenceSystem


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
    training: TrainingConfig = TrainingConfig(learning_rate=5e-3, patience=20)


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


class Network(SequenceNetwork):
    """Packed item rows ``[P]`` → states ``[P, D]``; state p is compared with the item table to predict event p + 1."""

    popularity: Popularity

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
        return None if self.bias is None else self.bias.weight[:, 0]

    def forward(self, items: Tensor, packing: Packing) -> Tensor:
        x = self.drop(self.items(items))
        places, sizes = _by_step(packing)
        x = torch.empty_like(x).index_copy(0, places, x)
        for layer in self.recurrent:
            x = self.drop(layer(PackedSequence(x, sizes))[0].data)
        return self.out(x[places])

    def read(self, batch: SequenceBatch) -> Tensor:
        packing = Packing(batch.lengths, batch.items.device)
        return self(batch.items, packing)[packing.last]


def _by_step(packing: Packing) -> tuple[Tensor, Tensor]:
    """Where each packed event goes when all first events come first, then all second ones (``[P]``), and how many
    histories have each step (``[T]``, CPU): the layout of torch's recurrent layers. No padding in between."""
    positions = packing.positions.cpu()
    sizes = torch.bincount(positions)
    row = torch.repeat_interleave(torch.arange(len(packing.lengths)), packing.lengths)
    return ((sizes.cumsum(0) - sizes)[positions] + row).to(packing.device), sizes


class GRU4Rec(SequenceSystem[GRU4RecConfig, Network]):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = GRU4RecConfig, Network

    def loss(self, network: Network, batch: SequenceBatch) -> Tensor:
        config = self.config
        assert batch.targets is not None
        states = network(batch.items, Packing(batch.lengths, batch.items.device))
        table, offsets = network.table, network.offsets
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


def tiny() -> GRU4RecConfig:
    """Learns on a laptop CPU in a minute."""
    return GRU4RecConfig(
        width=32, hidden=64, length=50, training=TrainingConfig(epochs=60, learning_rate=5e-3, patience=5)
    )
