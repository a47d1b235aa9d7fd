"""Items of a batch through a text model: each distinct item once, packed, and with gradients.

A batch of B histories names an item again and again; its vector is one and the same, so it is computed once and read
wherever it is named: the same loss and the same gradients as with each occurrence encoded, for a fraction of the work.
Tokens travel packed, longest first. A pool too large for the memory is encoded in chunks whose activations are
computed again on the way back (gradient caching, Gao et al. 2021, arXiv 2101.06983): the gradient of one large batch,
in the memory of one chunk. Shapes: N items, n asked items, P tokens of them, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from palate.core.ragged import Ragged
from palate.parts.dropout import Dropout
from palate.parts.packing import Packing, attention

Pooling = Literal["slot", "mean"]


class Reads(Protocol):
    """A text model: ``embed`` tokens, then ``packed_states``."""

    @property
    def width(self) -> int: ...

    def embed(self, tokens: Tensor) -> Tensor: ...

    def packed_states(self, embeddings: Tensor, groups: Packing, attend: Callable[..., Tensor]) -> Tensor: ...


def attend_within(packing: Packing) -> Callable[..., Tensor]:
    """Attention inside the sequences of ``packing``, as ``backbones.packed`` calls it."""

    def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, dropout: float = 0.0) -> Tensor:
        return attention(q, k, v, packing, causal=causal, drop=Dropout(dropout) if dropout else None)

    return attend


@dataclass(frozen=True, eq=False)
class ItemTokens:
    """The texts of N items as token ids: ``values`` one after another, ``offsets`` ``[N + 1]``."""

    values: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, tokens: Ragged) -> ItemTokens:
        return cls(torch.from_numpy(tokens.flat().astype(np.int64)), torch.from_numpy(tokens.offsets()))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self, rows: Tensor) -> Tensor:
        """``[n]``"""
        return self.offsets[rows + 1] - self.offsets[rows]

    def packed(self, rows: Tensor, more: int = 0) -> tuple[Tensor, Tensor]:
        """The tokens of these items one after another ``[P]``, each followed by ``more`` places, and which of the
        places they are ``[P]`` of ``[P + n · more]``."""
        lengths = self.lengths(rows)
        item = torch.repeat_interleave(torch.arange(len(rows)), lengths)
        ends = torch.cumsum(lengths, 0)
        within = torch.arange(int(ends[-1]) if len(ends) else 0) - (ends - lengths)[item]
        return self.values[self.offsets[rows][item] + within], within + (ends - lengths)[item] + more * item


class ItemTower(nn.Module):
    """Item rows ``[n]`` → vectors ``[n, D]`` by a text model whose network is ``reader``'s.

    ``slot``: a learnt input behind each text, whose last state is the item's vector. ``mean``: the mean of the states.
    """

    def __init__(self, network: nn.Module, width: int, pooling: Pooling, chunk_tokens: int) -> None:
        super().__init__()
        self.network, self.pooling, self.chunk_tokens = network, pooling, chunk_tokens
        self.slot = nn.Parameter(0.02 * torch.randn(width)) if pooling == "slot" else None

    def forward(self, reader: Reads, tokens: ItemTokens, rows: Tensor) -> Tensor:
        """``rows`` distinct, on the CPU, in any order."""
        order = torch.argsort(tokens.lengths(rows), descending=True, stable=True)
        chunks = list(self._chunks(tokens, rows[order]))
        if len(chunks) == 1 or not torch.is_grad_enabled():
            done = [self.encode(reader, tokens, chunk) for chunk in chunks]
        else:
            done = [checkpoint(self.encode, reader, tokens, chunk, use_reentrant=False) for chunk in chunks]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        return torch.cat(done)[back.to(done[0].device)]

    def encode(self, reader: Reads, tokens: ItemTokens, rows: Tensor) -> Tensor:
        """One chunk, longest first."""
        device = next(self.network.parameters()).device
        read, places = tokens.packed(rows, more=int(self.slot is not None))
        lengths = tokens.lengths(rows) + int(self.slot is not None)
        packing = Packing(lengths, device)
        x = reader.embed(read.to(device))
        if self.slot is not None:
            x = x.new_zeros((len(read) + len(rows), x.shape[1])).index_copy(0, places.to(device), x)
            x = x.index_copy(0, packing.last, self.slot.to(x.dtype).expand(len(rows), -1))
        states = reader.packed_states(x, packing, attend_within(packing))
        if self.slot is not None:
            return states[packing.last]
        item = torch.repeat_interleave(torch.arange(len(rows)), lengths).to(device)
        summed = torch.zeros(len(rows), states.shape[1], dtype=states.dtype, device=device).index_add(0, item, states)
        return summed / lengths.to(device)[:, None]

    def _chunks(self, tokens: ItemTokens, rows: Tensor) -> Iterator[Tensor]:
        """Rows of each chunk, at most ``chunk_tokens`` tokens, or a single item."""
        total = torch.cumsum(tokens.lengths(rows) + int(self.slot is not None), 0)
        start, done = 0, 0
        while start < len(rows):
            stop = max(start + 1, int(torch.searchsorted(total, done + self.chunk_tokens, right=True)))
            yield rows[start:stop]
            start, done = stop, int(total[stop - 1])
