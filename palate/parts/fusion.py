"""From a history and a target to one number: early fusion, where the decoder reads the target, and late fusion.

HLLM (arXiv 2409.12740, section 3.3). Early: the target stands behind the history, and the decoder's last state is
mapped to a logit. Many targets of one history are read at once: each sees the history and itself, none sees another,
and the history is read once for all of them (M-FALCON, Zhai et al. 2024, arXiv 2402.17152). Late: a learnt slot behind
the history gives a user vector that knows no target. The heads are not described in the paper; these are small networks
of two layers. Shapes: P packed events of b histories, T the longest, m targets of each, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from palate.parts.item_tower import attend_within
from palate.parts.packing import Group, Packing, attention

NUMBERS = 1 << 22
"""Of one layer, held at once while all items are scored."""


class Decoder(Protocol):
    """Vectors ``[P, D]`` → states ``[P, D]``, such as ``backbones.vector_model``."""

    @property
    def packs(self) -> bool:
        """Whether ``attend`` decides who sees whom."""

    def packed_states(self, vectors: Tensor, groups: Any, attend: Callable[..., Tensor]) -> Tensor: ...


class Early(nn.Module):
    """The decoder reads the target behind the history; its last state ``[..., D]`` → a logit ``[...]``."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, 1))

    def forward(self, decoder: Decoder, read: Tensor, packing: Packing, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Histories ``[P, D]``, none empty, and targets ``[b, m, D]`` → states ``[P, D]`` and logits ``[b, m]``."""
        states, ends = early_states(decoder, read, packing, targets)
        return states, self.layers(ends.float())[..., 0]

    def all_logits(self, decoder: Decoder, read: Tensor, packing: Packing, items: Tensor) -> Tensor:
        """``[b, N]`` for all items ``[N, D]``, some at a time."""
        b, width = len(packing.lengths), items.shape[1]
        asked = torch.split(items, max(1, NUMBERS // (b * (int(packing.lengths.max()) + width))))
        return torch.cat([self(decoder, read, packing, some.expand(b, -1, -1))[1] for some in asked], 1)


class Late(nn.Module):
    """A learnt slot behind the history gives a user vector u that knows no target; two layers over ``[u; e; u ⊙ e]``
    give the logit of an item's vector e."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.slot = nn.Parameter(0.02 * torch.randn(width))
        self.user, self.item = nn.Linear(width, inner), nn.Linear(width, inner, bias=False)
        self.product, self.out = nn.Linear(width, inner, bias=False), nn.Linear(inner, 1)
        self.inner = inner

    def forward(self, decoder: Decoder, read: Tensor, packing: Packing, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Histories ``[P, D]``, none empty, and targets ``[b, m, D]`` → states ``[P, D]`` and logits ``[b, m]``."""
        states, users = self.users(decoder, read, packing)
        return states, self.logits(users, targets.float())

    def users(self, decoder: Decoder, read: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
        """States ``[P, D]`` and user vectors ``[b, D]``."""
        longer, x = followed(read, packing, self.slot)
        states = decoder.packed_states(x, longer, attend_within(longer))
        return states[_but(len(x), longer.last)], states[longer.last].float()

    def logits(self, users: Tensor, items: Tensor) -> Tensor:
        """Users ``[b, D]`` and items ``[b, m, D]``, or ``[m, D]`` for all of them → ``[b, m]``."""
        inner = self.user(users)[:, None] + self.item(items) + self.product(users[:, None] * items)
        return self.out(F.gelu(inner))[..., 0]

    def all_logits(self, decoder: Decoder, read: Tensor, packing: Packing, items: Tensor) -> Tensor:
        """``[b, N]`` for all items ``[N, D]``, some at a time."""
        users = self.users(decoder, read, packing)[1]
        asked = torch.split(items, max(1, NUMBERS // (len(users) * (self.inner + items.shape[1]))))
        return torch.cat([self.logits(users, some) for some in asked], 1)


class _WithTargets:
    """Packed histories and, behind all of them, m targets of each: the places of tokens, and who sees whom."""

    groups: Sequence[Group] = ()

    def __init__(self, packing: Packing, m: int) -> None:
        self.packing, self.m, self.lengths = packing, m, packing.lengths
        b, device = len(packing.lengths), packing.device
        after = packing.lengths.to(device)
        self.positions = torch.cat([packing.positions, torch.repeat_interleave(after, m)])
        self.b, self.longest = b, int(packing.lengths.max())
        row = torch.repeat_interleave(torch.arange(b), packing.lengths).to(device)
        self.slots = row * self.longest + packing.positions
        self.seen = torch.arange(self.longest, device=device) < after[:, None]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, dropout: float = 0.0) -> Tensor:
        """``[P + b·m, H, d]`` three times → the same."""
        p, (heads, d) = len(self.slots), q.shape[1:]
        history = attention(q[:p], k[:p], v[:p], self.packing, causal=causal)
        padded = [x.new_zeros(self.b * self.longest, heads, d).index_copy(0, self.slots, x[:p]) for x in (k, v)]
        keys, values = (x.view(self.b, self.longest, heads, d) for x in padded)
        asked, own, worth = (x[p:].view(self.b, self.m, heads, d) for x in (q, k, v))
        scores = torch.einsum("bmhd,bthd->bhmt", asked, keys).masked_fill(~self.seen[:, None, None], -torch.inf)
        itself = (asked * own).sum(-1).transpose(1, 2)[..., None]
        weights = torch.softmax(torch.cat([scores, itself], -1) * d**-0.5, -1)
        mixed = torch.einsum("bhmt,bthd->bmhd", weights[..., :-1], values)
        mixed = mixed + weights[..., -1:].transpose(1, 2) * worth
        return torch.cat([history, mixed.reshape(-1, heads, d)])


def tell_apart(logits: Tensor, other: Tensor) -> Tensor:
    """Binary cross entropy of ``[b, 1 + m]`` logits, those of the targets first, mean; what was drawn against a target
    counts where it is an ``other`` item ``[b, m]``."""
    wanted = torch.zeros_like(logits)
    wanted[:, 0] = 1
    loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return loss[F.pad(other, (1, 0), value=True)].mean()


def early_states(decoder: Decoder, vectors: Tensor, packing: Packing, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Histories ``[P, D]``, none empty, and targets ``[b, m, D]`` → states of the events ``[P, D]`` and of the targets
    ``[b, m, D]``, each target read as if it alone stood behind its history."""
    b, m, d = targets.shape
    if not decoder.packs:
        return _one_by_one(decoder, vectors, packing, targets)
    places = _WithTargets(packing, m)
    states = decoder.packed_states(torch.cat([vectors, targets.reshape(-1, d)]), places, places.attend)
    return states[: len(vectors)], states[len(vectors) :].view(b, m, d)


def _one_by_one(decoder: Decoder, vectors: Tensor, packing: Packing, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The same by a decoder with an attention of its own: the history is read again for each target."""
    found = []
    for place in range(targets.shape[1]):
        longer, x = followed(vectors, packing, targets[:, place])
        states = decoder.packed_states(x, longer, attend_within(longer))
        found.append(states[longer.last])
    return states[_but(len(x), longer.last)], torch.stack(found, 1)


def followed(vectors: Tensor, packing: Packing, last: Tensor) -> tuple[Packing, Tensor]:
    """Each history with one more vector behind it: ``last`` ``[b, D]``, or ``[D]`` for all."""
    longer = Packing(packing.lengths + 1, packing.device)
    x = vectors.new_zeros((len(vectors) + len(packing.lengths), vectors.shape[1]))
    x = x.index_copy(0, _but(len(x), longer.last).nonzero()[:, 0], vectors)
    return longer, x.index_copy(0, longer.last, last.to(x.dtype).expand(len(packing.lengths), -1))


def _but(n: int, places: Tensor) -> Tensor:
    """``[n]`` True everywhere but there."""
    return torch.ones(n, dtype=torch.bool, device=places.device).index_fill(0, places, False)
