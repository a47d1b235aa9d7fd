"""HSTU: attention without softmax over the history, with learned biases for how far and how long ago an event was.

Zhai et al., "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative
Recommendations", ICML 2024 (arXiv 2402.17152), in the form of its public experiments: items alone, next-item task.
Shapes: P packed events, b sequences of a group padded to T, H heads, d_qk and d_v their widths, D width, N items::

    U, V, Q, K = split(SiLU(LN(X) W_uvqk))                      no bias in W_uvqk
    A = SiLU(Q Kᵀ + r_place + r_time) / length, causal          no softmax, no 1/√d_qk: rows of A do not sum to 1
    X ← X + W_o dropout(LN(A V) ⊙ U)                            both LayerNorms without affine parameters

``r_place``: a scalar for each distance i - j. ``r_time``: one of 129 scalars, by floor(ln(max(1, seconds)) / 0.301)
of the time from event j to **the event after i**: the network knows when the target happens, and at serving when the
question is asked. Both are shared by heads and own to each layer. Without ``time_bias``, or on data without times, it
is not HSTU and says so: ``label`` and the facts read "HSTU without time bias".

Where we depart, and why:
- A is divided by the constant ``length`` (the public scripts: by their padded length, 11 more), never by how a batch
  was padded; a causal mask reaches ``length`` of the 2 * length - 1 distances, so only those are stored.
- The default loss is cross entropy over all items by plain dot product, after a LayerNorm: the same as SASRec's, so
  that the networks are compared and not their losses. ``paper_ml_1m()`` and ``large()`` restore the published one:
  128 uniform negatives for each position, unit vectors, temperature 0.05; a negative that is the target does not
  count, other history items may be drawn.
- Positions in the input count back from the newest event, so that nothing depends on padding.
- Requests without times are read as evenly spaced, by the median gap of the training data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.errors import TrainingError
from palate.core.protocols import Judge
from palate.core.run import Run
from palate.core.space import Choice, Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.batches import SequenceBatch
from palate.parts import losses
from palate.parts.dropout import Dropout
from palate.parts.negatives import Popularity
from palate.parts.packing import Group, Packing
from palate.training.sequences import SequenceNetwork, SequenceSystem
from palate.training.shell import Lesson

BUCKETS = 129
"""Of elapsed time: 0 up to one second, then each 1.35 times as long as the one before."""
PAIR_BYTES = 2**20
"""One array of attention weights alive at once: what the cache of a core holds with its temporaries."""


class HSTUConfig(Config):
    width: int = Field(64, ge=1)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    query_width: int = Field(32, ge=1)
    """d_qk of each head."""
    value_width: int = Field(32, ge=1)
    """d_v of each head."""
    length: int = Field(100, ge=1)
    """The last so many events are read."""
    time_bias: bool = True
    """Know how long ago each event was; what is fitted without it is not called HSTU."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Of embeddings and of each layer's gated output; attention weights have none."""
    loss: Literal["full-softmax", "sampled-softmax"] = "full-softmax"
    negatives: int = Field(128, ge=1)
    """Drawn uniformly for each position by the sampled softmax; full softmax uses none."""
    normalise: bool = False
    """Compare unit vectors, divided by ``temperature``; else a plain dot product."""
    temperature: float = Field(0.05, gt=0)
    batch_size: int = Field(128, ge=1)
    windows: Literal["last", "all"] = "all"
    """Learn from the newest window of each history, or from all of it."""
    training: TrainingConfig = TrainingConfig(learning_rate=4e-3, patience=20)


SPACE: SearchSpace = {
    "dropout": Range(0.1, 0.7),
    "layers": Range(1, 4, whole=True),
    "length": Choice((50, 100, 200)),
    "training.learning_rate": Range(1e-3, 5e-3, log=True),
}
"""What ``--tune`` searches."""


def elapsed(times: Tensor, next_times: Tensor) -> Tensor:
    """``[b, T]`` ms twice → ``[b, T, T]`` uint8: the bucket of the time from event j to the event after i."""
    b, t = times.shape
    buckets = torch.empty((b, t, t), dtype=torch.uint8, device=times.device)
    for part in _parts(b, t * t):
        gap = (next_times[part, :, None] - times[part, None, :]).to(torch.float32).abs_()
        buckets[part] = gap.div_(1000).clamp_(min=1).log_().div_(0.301).clamp_(max=BUCKETS - 1).to(torch.uint8)
    return buckets


def _parts(b: int, cells: int) -> Iterator[slice]:
    """Slices of b sequences, so that ``cells`` float32 of each stay within ``PAIR_BYTES``."""
    step = max(1, PAIR_BYTES // (4 * cells))
    return (slice(start, min(start + step, b)) for start in range(0, b, step))


class _PointwiseAttention(torch.autograd.Function):
    """``SiLU(q kᵀ + bias) v`` under a causal mask; no array of ``[b, H, T, T]`` outlives its slice of sequences.

    q, k ``[b, H, T, d_qk]``, v ``[b, H, T, d_v]``, place ``[T]``, time ``[BUCKETS]`` and buckets ``[b, T, T]`` or None.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, place: Tensor, time: Tensor | None, buckets: Tensor | None
    ) -> Tensor:
        b, h, t, _ = q.shape
        by_place = _by_place(place, t)
        mixed = v.new_empty(v.shape)
        for part in _parts(b, h * t * t):
            pairs = _pairs(q[part], k[part], by_place, time, None if buckets is None else buckets[part])
            torch.matmul(F.silu(pairs, inplace=True), v[part], out=mixed[part])
        ctx.save_for_backward(q, k, v, place, time, buckets)
        return mixed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, place, time, buckets = ctx.saved_tensors
        b, h, t, _ = q.shape
        by_place = _by_place(place, t)
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        grad_by_place = torch.zeros_like(by_place)
        grad_time = None if time is None else torch.zeros_like(time)
        for part in _parts(b, h * t * t):
            here = None if buckets is None else buckets[part]
            pairs = _pairs(q[part], k[part], by_place, time, here)
            grad = grads[0][part]
            torch.matmul(F.silu(pairs).mT, grad, out=grad_v[part])
            grad_pairs = torch.ops.aten.silu_backward(grad @ v[part].mT, pairs)
            torch.matmul(grad_pairs, k[part], out=grad_q[part])
            torch.matmul(grad_pairs.mT, q[part], out=grad_k[part])
            by_sequence = grad_pairs.sum(1, dtype=torch.float32)
            grad_by_place += by_sequence.sum(0)
            if grad_time is not None and here is not None:
                grad_time += torch.bincount(here.view(-1), by_sequence.view(-1), minlength=BUCKETS)
        distance = _distances(t, place.device)
        grad_place = torch.zeros_like(place).index_add_(0, distance.clamp(min=0).view(-1), grad_by_place.view(-1))
        return grad_q, grad_k, grad_v, grad_place, grad_time, None


def _distances(t: int, device: torch.device) -> Tensor:
    """``[T, T]`` i - j."""
    places = torch.arange(t, device=device)
    return places[:, None] - places


def _by_place(place: Tensor, t: int) -> Tensor:
    """``[T, T]`` the bias of each pair; so low for a later j that SiLU, and its slope, are exactly 0 there."""
    distance = _distances(t, place.device)
    return place[distance.clamp(min=0)].masked_fill_(distance < 0, -1e4)


def _pairs(q: Tensor, k: Tensor, by_place: Tensor, time: Tensor | None, buckets: Tensor | None) -> Tensor:
    """``[b, H, T, T]`` before SiLU."""
    pairs = q @ k.mT
    if time is None or buckets is None:
        return pairs.add_(by_place)
    bias = time.index_select(0, buckets.view(-1).to(torch.int32)).view(buckets.shape).add_(by_place)
    return pairs.add_(bias[:, None])


class Block(nn.Module):
    """``[P, D]`` → ``[P, D]``."""

    def __init__(self, config: HSTUConfig, timed: bool) -> None:
        super().__init__()
        self.config = config
        self.sizes = [config.heads * width for width in (config.value_width,) * 2 + (config.query_width,) * 2]
        self.uvqk = nn.Linear(config.width, sum(self.sizes), bias=False)
        self.out = nn.Linear(config.heads * config.value_width, config.width)
        self.place_bias = nn.Parameter(torch.empty(config.length))
        self.time_bias = nn.Parameter(torch.empty(BUCKETS)) if timed else None
        self.drop = Dropout(config.dropout)
        for weight in (self.uvqk.weight, self.place_bias, self.time_bias):
            if weight is not None:
                nn.init.normal_(weight, std=0.02)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, packing: Packing, buckets: dict[int, Tensor]) -> Tensor:
        p, heads = len(x), self.config.heads
        u, v, q, k = torch.split(F.silu(self.uvqk(F.layer_norm(x, x.shape[-1:], eps=1e-6))), self.sizes, dim=1)

        def attend(q: Tensor, k: Tensor, v: Tensor, group: Group) -> Tensor:
            q, k, v = (tensor.transpose(1, 2).contiguous() for tensor in (q, k, v))
            mixed = _PointwiseAttention.apply(q, k, v, self.place_bias, self.time_bias, buckets.get(group.row))  # type: ignore[no-untyped-call]
            return mixed.transpose(1, 2)

        mixed = packing.apply(attend, *(tensor.reshape(p, heads, -1) for tensor in (q, k, v))).reshape(p, -1)
        mixed = F.layer_norm(mixed / self.config.length, mixed.shape[-1:], eps=1e-6)
        return x + self.out(self.drop(mixed * u))


class Network(SequenceNetwork):
    """Packed item rows ``[P]`` and times → states ``[P, D]``; state p is compared with the item table."""

    popularity: Popularity

    def __init__(self, config: HSTUConfig, n_items: int, *, timed: bool) -> None:
        super().__init__()
        self.config, self.timed = config, timed
        self.items = nn.Embedding(n_items, config.width)
        self.positions = nn.Embedding(config.length, config.width)
        self.blocks = nn.ModuleList(Block(config, timed) for _ in range(config.layers))
        self.norm = None if config.normalise else nn.LayerNorm(config.width, eps=1e-6)
        self.drop = Dropout(config.dropout)
        self.popularity = Popularity(n_items)
        self.typical_gap: Tensor
        self.register_buffer("typical_gap", torch.zeros((), dtype=torch.int64))
        nn.init.trunc_normal_(self.items.weight, std=0.02)
        nn.init.trunc_normal_(self.positions.weight, std=0.02)

    @property
    def table(self) -> Tensor:
        return F.normalize(self.items.weight, dim=-1) if self.config.normalise else self.items.weight

    def forward(self, batch: SequenceBatch) -> Tensor:
        """``batch`` on the network's device; its targets are not read."""
        packing = Packing(batch.lengths, self.items.weight.device)
        buckets = self._buckets(batch, packing) if self.timed else {}
        x = self.items(batch.items) * self.config.width**0.5
        x = self.drop(x + self.positions(packing.places_from_end(self.config.length)))
        for block in self.blocks:
            x = block(x, packing, buckets)
        return F.normalize(x, dim=-1) if self.norm is None else self.norm(x)

    def read(self, batch: SequenceBatch) -> Tensor:
        return self(batch)[Packing(batch.lengths, batch.items.device).last]

    def _buckets(self, batch: SequenceBatch, packing: Packing) -> dict[int, Tensor]:
        """For each group of the packing, by its first row: how long ago everything was. One byte a pair of events,
        once for all layers."""
        times, next_times = batch.times, batch.next_times
        if times is None or next_times is None:
            times = packing.positions * self.typical_gap
            next_times = times + self.typical_gap
        return {group.row: elapsed(group.pad(times), group.pad(next_times)) for group in packing.groups}


class HSTU(SequenceSystem[HSTUConfig, Network]):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = HSTUConfig, Network

    @property
    def label(self) -> str:
        """What this system may be called in a table."""
        timed = self.config.time_bias if self.network is None else self.network.timed
        return "HSTU" if timed else "HSTU without time bias"

    def shape(self, train: Dataset) -> dict[str, Any]:
        """With times or without, as before when it goes on."""
        timed = self.network.timed if self.network else self.config.time_bias and train.times is not None
        return {"n_items": train.n_items, "timed": timed}

    def continue_fit(self, train: Dataset, run: Run, judge: Judge | None = None) -> Self:
        """Go on from the present weights; items that are new begin as untrained rows."""
        if self.fitted().timed and train.times is None:
            raise TrainingError("this HSTU was fitted with times and cannot continue on data without; fit it anew")
        return super().continue_fit(train, run, judge)

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        self.fitted().typical_gap.fill_(_median_gap(train))
        return super().lesson(train, run)

    def remarks(self) -> dict[str, Any]:
        timed = self.fitted().timed
        missing = {"note": "the data has no times, so that the time bias was left out"}
        return {"label": self.label, "time_bias": timed, **(missing if self.config.time_bias and not timed else {})}

    def loss(self, network: Network, batch: SequenceBatch) -> Tensor:
        config = self.config
        assert batch.targets is not None
        states = network(batch)
        if config.normalise:
            states = states / config.temperature
        if config.loss == "full-softmax":
            return losses.full_softmax(states, network.table, batch.targets)
        negatives = network.popularity.draw((len(states), config.negatives), by_popularity=False)
        return losses.sampled_softmax(*losses.positive_and_negatives(states, network.table, batch.targets, negatives))


def _median_gap(train: Dataset) -> int:
    """Milliseconds between neighbouring events of a history; 0 where times are unknown."""
    if train.times is None:
        return 0
    gaps = np.diff(train.times)[np.diff(train.user_rows) == 0]
    return int(np.median(gaps)) if len(gaps) else 0


def tiny() -> HSTUConfig:
    """Learns on a laptop CPU in a minute."""
    return HSTUConfig(
        width=32,
        query_width=16,
        value_width=16,
        length=50,
        dropout=0.3,
        training=TrainingConfig(epochs=60, learning_rate=4e-3, patience=5),
    )


def paper_ml_1m() -> HSTUConfig:
    """The published setting for MovieLens-1M, in the budget of the SASRec it was compared with."""
    return HSTUConfig(
        width=50, heads=1, query_width=50, value_width=50, length=200, dropout=0.2, loss="sampled-softmax",
        normalise=True, windows="last", training=TrainingConfig(clip_norm=0.0, epochs=101, patience=20),
    )  # fmt: skip


def large() -> HSTUConfig:
    """HSTU-large for MovieLens-1M: as ``paper_ml_1m()`` with eight layers of two heads of width 25."""
    return HSTUConfig(
        width=50, layers=8, heads=2, query_width=25, value_width=25, length=200, dropout=0.2, loss="sampled-softmax",
        normalise=True, windows="last", training=TrainingConfig(clip_norm=0.0, epochs=101, patience=20),
    )  # fmt: skip
