"""A learnt prompt: vectors that stand before whatever a frozen model reads, and nothing else that learns.

Lester et al., "The Power of Scale for Parameter-Efficient Prompt Tuning" (arXiv 2104.08691). The m vectors are reached
by ids below 0, so that they travel through every path that tokens take (padding, packing, branches, cached prompts)
and are no words: nothing can be spelled with them, and the head never answers one. Shapes: m vectors, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from palate.backbones.added_rows import add_rows
from palate.core.ragged import IntArray


class PromptedTable(nn.Module):
    """An input table beside a learnt prompt: id -1 is its first vector, -m its last."""

    def __init__(self, table: nn.Module, prompt: nn.Parameter) -> None:
        super().__init__()
        self.table, self.prompt = table, prompt

    @property
    def num_embeddings(self) -> int:
        """V: the prompt has no words."""
        return int(self.table.num_embeddings)  # type: ignore[arg-type]

    @property
    def embedding_dim(self) -> int:
        return int(self.table.embedding_dim)  # type: ignore[arg-type]

    @property
    def weight(self) -> Tensor:
        """``[V, D]``, that of the table."""
        return self.table.weight  # type: ignore[return-value]

    def forward(self, ids: Tensor) -> Tensor:
        words = self.table(ids.clamp(min=0))
        learnt = self.prompt[(-1 - ids).clamp(0, len(self.prompt) - 1)].to(words.dtype)
        return torch.where((ids < 0)[..., None], learnt, words)


def insert_prompt(model: Any, m: int, words: IntArray) -> nn.Parameter:
    """Put a prompt of ``m`` vectors before the input table of a ``transformers`` model; they begin as copies of tokens
    that are drawn from the ids ``words`` by torch's random state, which learns faster than noise."""
    table = model.get_input_embeddings()
    drawn = torch.from_numpy(words)[torch.randint(len(words), (m,))]
    with torch.no_grad():
        prompt = nn.Parameter(table(drawn.to(next(table.parameters()).device)).float())
    model.set_input_embeddings(PromptedTable(table, prompt))
    return prompt


def add_words(model: Any, n: int) -> None:
    """``added_rows.add_rows``, also under a learnt prompt."""
    table = model.get_input_embeddings()
    if not isinstance(table, PromptedTable):
        add_rows(model, n)
        return
    model.set_input_embeddings(table.table)
    add_rows(model, n)
    table.table = model.get_input_embeddings()
    model.set_input_embeddings(table)


def prompt_of(model: Any) -> nn.Parameter | None:
    """The learnt prompt of a model, where it has one."""
    table = model.get_input_embeddings()
    return table.prompt if isinstance(table, PromptedTable) else None
