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

from typing import Literal

import torch
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


class BERT4RecConfig(AttentionConfig):
    heads: int = Field(2, ge=1)
    layers: int = Field(2, ge=1)
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


class Network(SequenceNetwork):
    """Packed item rows ``[P]`` and which of them are hidden → what is guessed at the hidden ones, ``[M, D]``."""

    popularity: Popularity

    def __init__(self, config: BERT4RecConfig, n_items: int) -> None:
        super().__init__()
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
        return self.bias.weight[:, 0]

    def forward(self, items: Tensor, hidden: Tensor, packing: Packing) -> Tensor:
        x = torch.where(hidden[:, None], self.mask, self.items(items))
        x = self.drop(self.norm(x + self.positions(packing.places_from_end(self.config.length))))
        for block in self.blocks:
            x = block(x, packing)
        return self.norm_guess(F.gelu(self.guess(x[hidden])))

    def read(self, batch: SequenceBatch) -> Tensor:
        items, longer, last = with_one_more(batch.items, batch.lengths)
        return self(items, last, Packing(longer, items.device))


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


class BERT4Rec(SequenceSystem[BERT4RecConfig, Network]):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = BERT4RecConfig, Network

    @property
    def length(self) -> int:
        """One event short of a window: in training the last target completes it, in a question the hidden event."""
        return self.config.length - 1

    def loss(self, network: Network, batch: SequenceBatch) -> Tensor:
        assert batch.targets is not None
        ends = (batch.lengths.cumsum(0) - 1).to(batch.items.device)
        items, lengths, _ = with_one_more(batch.items, batch.lengths, batch.targets[ends])
        packing = Packing(lengths, items.device)
        hidden = draw_hidden(packing, self.config.mask_share, self.config.last_share)
        guesses = network(items, hidden, packing)
        return losses.full_softmax(guesses, network.table, items[hidden], network.offsets)


def tiny() -> BERT4RecConfig:
    """Learns on a laptop CPU in a minute or two."""
    return BERT4RecConfig(
        width=32,
        length=50,
        dropout=0.2,
        training=TrainingConfig(epochs=300, learning_rate=2e-3, warmup_steps=50, patience=6, judge_every=5),
    )
