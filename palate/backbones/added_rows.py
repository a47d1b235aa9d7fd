"""Rows for new tokens beside a vocabulary that stays as it is.

A table of V rows gets n more as a parameter of its own, instead of being copied into a larger one: the rows can be
trained while the table is frozen, the optimiser keeps moments for them alone, they stay float32 beside a bfloat16
table, and only they need saving. What comes out equals the resized table. Where input table and output head are one
matrix, so are their rows. Shapes: D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GrownTable(nn.Module):
    """Ids ``[...]`` below V + n → ``[..., D]``."""

    def __init__(self, table: nn.Embedding, rows: nn.Parameter) -> None:
        super().__init__()
        self.table, self.rows = table, rows

    @property
    def num_embeddings(self) -> int:
        return self.table.num_embeddings + len(self.rows)

    @property
    def embedding_dim(self) -> int:
        return self.table.embedding_dim

    @property
    def weight(self) -> Tensor:
        """``[V + n, D]``, a copy."""
        return torch.cat([self.table.weight, self.rows.to(self.table.weight.dtype)])

    def forward(self, ids: Tensor) -> Tensor:
        v = self.table.num_embeddings
        known = self.table(ids.clamp(max=v - 1))
        # Some models scale what they look up.
        added = self.rows[(ids - v).clamp(min=0)].to(known.dtype) * getattr(self.table, "embed_scale", 1.0)
        return torch.where((ids >= v)[..., None], added, known)


class GrownHead(nn.Module):
    """``[..., D]`` → ``[..., V + n]``; added rows have no bias."""

    def __init__(self, head: nn.Linear, rows: nn.Parameter) -> None:
        super().__init__()
        self.head, self.rows = head, rows

    @property
    def weight(self) -> Tensor:
        """``[V + n, D]``, a copy."""
        return torch.cat([self.head.weight, self.rows.to(self.head.weight.dtype)])

    def forward(self, states: Tensor) -> Tensor:
        return torch.cat([self.head(states), F.linear(states, self.rows.to(states.dtype))], dim=-1)


def add_rows(model: Any, n: int) -> None:
    """``n`` more rows for input table and head of a ``transformers`` model, behind those that were added before.

    A new row is drawn around the mean of the table with the spread of its columns, so that it looks like a word.
    """
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = bool(_first(head).weight is _first(table).weight)
    rows = nn.Parameter(torch.cat([*_added(table), _drawn(_first(table).weight, n)]))
    model.set_input_embeddings(GrownTable(_first(table), rows))
    if not tied:
        rows = nn.Parameter(torch.cat([*_added(head), _drawn(_first(head).weight, n)]))
    model.set_output_embeddings(GrownHead(_first(head), rows))
    model.config.vocab_size = _first(table).num_embeddings + len(rows)


def logits_of(head: nn.Module, states: Tensor, tokens: Tensor) -> Tensor:
    """``[..., D]`` → ``[..., n]``: what ``head`` gives for these ids, without the rest of its products."""
    first = _first(head)
    assert isinstance(first, nn.Linear)
    v = first.out_features
    known = tokens.clamp(max=v - 1)
    rows, bias = first.weight[known], None if first.bias is None else first.bias[known]
    if isinstance(head, GrownHead):
        new = tokens >= v
        rows = torch.where(new[:, None], head.rows[(tokens - v).clamp(min=0)].to(rows.dtype), rows)
        bias = None if bias is None else bias.masked_fill(new, 0)
    return F.linear(states, rows, bias)


def _first(grown: Any) -> Any:
    """The table or head as it was before anything was added."""
    if isinstance(grown, GrownTable):
        return grown.table
    return grown.head if isinstance(grown, GrownHead) else grown


def _added(grown: Any) -> list[Tensor]:
    return [grown.rows.detach()] if isinstance(grown, GrownTable | GrownHead) else []


@torch.no_grad()
def _drawn(weight: Tensor, n: int) -> Tensor:
    """``[n, D]`` float32, from the random state of the CPU: the same on every device."""
    wide = weight.float()
    noise = torch.randn(n, weight.shape[1]).to(weight.device)
    return wide.mean(0) + noise * wide.std(0)
