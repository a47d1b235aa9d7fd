"""SASRec: self-attention over the history; the state after the last event is compared with every item.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018 (arXiv 1808.09781). Block as in the public
code: ``h = MHA(q=LN(x), k=v=x, causal) + LN(x); x = FFN(LN(h)) + LN(h)``, two 1x1 ReLU layers with the residual
inside. Shapes: P packed events, D width, N items.

Where we depart, and why:
- The default loss is cross entropy over all items, not one-negative BCE: the loss, not the network, was SASRec's
  weakness (Klenitskiy and Vasilev 2023, arXiv 2309.07602; Petrov and Macdonald 2023, arXiv 2308.07192).
  ``paper_2018()`` restores the published loss; sampled softmax with log-Q correction and gBCE are options.
- Positions count back from the newest event, and histories are packed: there are no pad rows, so nothing depends on
  the padding length.
Negatives of the sampled losses are uniform over the catalogue (or by popularity with ``log_q``), drawn anew for each
position; a negative that is the target is masked, other history items are not.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from palate.core.config import AttentionConfig
from palate.core.space import Choice, Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.batches import SequenceBatch
from palate.parts import losses
from palate.parts.dropout import Dropout
from palate.parts.negatives import Popularity
from palate.parts.packing import Packing, attention
from palate.training.sequences import SequenceNetwork, SequenceSystem


class SASRecConfig(AttentionConfig):
    layers: int = Field(2, ge=1)
    length: int = Field(100, ge=1)
    """The last so many events are read."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Of embeddings, attention weights and feed-forward layers alike."""
    loss: Literal["full-softmax", "sampled-softmax", "gbce", "bce"] = "full-softmax"
    negatives: int = Field(256, ge=1)
    """Drawn for each position by the sampled losses; full softmax uses none."""
    log_q: bool = True
    """Sampled softmax: draw negatives by popularity and correct for it; else uniform."""
    gbce_t: float = Field(0.75, ge=0, le=1)
    """gBCE calibration; 0 is plain BCE, 1 fully calibrated."""
    tied: bool = True
    """Score with the input item table; else with one of its own."""
    normalise: bool = False
    """Compare unit vectors, divided by ``temperature``; else a plain dot product."""
    temperature: float = Field(0.05, gt=0)
    batch_size: int = Field(128, ge=1)
    windows: Literal["last", "all"] = "all"
    """Learn from the newest window of each history, or from all of it."""
    training: TrainingConfig = TrainingConfig(epochs=300, judge_every=2, patience=15)


SPACE: SearchSpace = {
    "dropout": Range(0.1, 0.7),
    "layers": Range(1, 3, whole=True),
    "length": Choice((50, 100, 200)),
    "training.learning_rate": Range(3e-4, 3e-3, log=True),
}
"""What ``--tune`` searches."""


class Block(nn.Module):
    """``[P, D]`` → ``[P, D]``."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_forward = nn.LayerNorm(width, eps=1e-8), nn.LayerNorm(width, eps=1e-8)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.forward_1, self.forward_2 = nn.Linear(width, width), nn.Linear(width, width)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        p, d = x.shape
        normed = self.norm_attention(x)
        q = self.query(normed).view(p, self.heads, d // self.heads)
        k, v = self.key_value(x).view(p, 2, self.heads, d // self.heads).unbind(1)
        h = normed + self.out(attention(q, k, v, packing, drop=self.drop).reshape(p, d))
        h = self.norm_forward(h)
        return h + self.drop(self.forward_2(self.drop(F.relu(self.forward_1(h)))))


class Network(SequenceNetwork):
    """Packed item rows ``[P]`` → states ``[P, D]``; state p is compared with the item table to predict event p + 1."""

    popularity: Popularity

    def __init__(self, config: SASRecConfig, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(n_items, config.width)
        self.positions = nn.Embedding(config.length, config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, eps=1e-8)
        self.drop = Dropout(config.dropout)
        self.targets = None if config.tied else nn.Embedding(n_items, config.width)
        self.popularity = Popularity(n_items)
        for module in self.modules():
            if isinstance(module, (nn.Embedding, nn.Linear)):
                nn.init.xavier_normal_(module.weight)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    @property
    def table(self) -> Tensor:
        table = (self.items if self.targets is None else self.targets).weight
        return F.normalize(table, dim=-1) if self.config.normalise else table

    def forward(self, items: Tensor, packing: Packing) -> Tensor:
        x = self.items(items) * self.config.width**0.5 + self.positions(packing.places_from_end(self.config.length))
        x = self.drop(x)
        for block in self.blocks:
            x = block(x, packing)
        x = self.norm(x)
        return F.normalize(x, dim=-1) if self.config.normalise else x

    def read(self, batch: SequenceBatch) -> Tensor:
        packing = Packing(batch.lengths, batch.items.device)
        return self(batch.items, packing)[packing.last]


class SASRec(SequenceSystem[SASRecConfig, Network]):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = SASRecConfig, Network

    def loss(self, network: Network, batch: SequenceBatch) -> Tensor:
        config = self.config
        assert batch.targets is not None
        states = network(batch.items, Packing(batch.lengths, batch.items.device))
        if config.normalise:
            states = states / config.temperature
        if config.loss == "full-softmax":
            return losses.full_softmax(states, network.table, batch.targets)
        by_popularity = config.loss == "sampled-softmax" and config.log_q
        negatives = network.popularity.draw((len(states), config.negatives), by_popularity=by_popularity)
        positive, negative = losses.positive_and_negatives(states, network.table, batch.targets, negatives)
        if config.loss == "sampled-softmax":
            share = network.popularity.log_share
            log_q = (share[batch.targets], share[negatives]) if by_popularity else None
            return losses.sampled_softmax(positive, negative, log_q)
        if config.loss == "gbce":
            beta = losses.gbce_beta(config.negatives, len(network.table), config.gbce_t)
            return losses.generalised_bce(positive, negative, beta)
        return losses.binary_cross_entropy(positive, negative)


def tiny() -> SASRecConfig:
    """Learns on a laptop CPU in a minute."""
    return SASRecConfig(width=32, length=50, dropout=0.3, training=TrainingConfig(epochs=60, patience=5))


def paper_2018() -> SASRecConfig:
    """The published loss and size: one uniform negative, binary cross entropy, width 50, one head, dropout 0.2."""
    return SASRecConfig(
        width=50, length=200, dropout=0.2, loss="bce", negatives=1, windows="last",
        training=TrainingConfig(clip_norm=0.0, epochs=600, patience=20),
    )  # fmt: skip
