"""Leaving out training examples by their losses, and remembering losses over epochs.

Shapes: m examples of a batch, n examples in all.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Prune = Literal["small_loss", "published", "none"]
"""``published`` keeps the largest losses, as formula and code of LLMRec do; ``small_loss`` keeps the smallest, as its
prose asks for."""
EPOCHS = 5
"""Epochs that a loss is remembered."""


def kept(losses: Tensor, rate: float, prune: Prune) -> Tensor:
    """``[N]`` rows of the ``N = floor((1 - rate) · m)`` examples that stay, at least one where there is any."""
    m = len(losses)
    if prune == "none" or not rate or not m:
        return torch.arange(m, device=losses.device)
    n = max(1, int((1 - rate) * m + 1e-9))  # 0.9 · 10 is 9, whatever floats say
    return losses.detach().topk(n, largest=prune == "published").indices


class LossMemory(nn.Module):
    """The losses of n examples in each of the last ``EPOCHS`` epochs; NaN where one was not seen. Saved with the
    network, so that a stopped run goes on with it."""

    losses: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("losses", torch.full((n, EPOCHS), torch.nan))

    def forget(self) -> None:
        self.losses.fill_(torch.nan)

    def write(self, rows: Tensor, losses: Tensor, epoch: int) -> None:
        """The losses ``[m]`` of examples ``rows`` in ``epoch``; of one given twice some one counts."""
        self.losses[rows, epoch % EPOCHS] = losses.detach().to(self.losses.dtype)

    def mean(self, rows: Tensor | None = None) -> Tensor:
        """``[n]``, or of these rows alone ``[m]``: the mean over the epochs that are remembered."""
        return (self.losses if rows is None else self.losses[rows]).nanmean(1)
