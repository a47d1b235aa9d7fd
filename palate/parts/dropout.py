"""Dropout whose random numbers are cheap on a CPU: one random byte an element instead of one Bernoulli draw."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def kept(shape: torch.Size, p: float) -> tuple[Tensor, float]:
    """A CPU tensor of bytes, 0 with probability ``p`` and else 1, and the factor that scales the rest.

    ``p`` is rounded to 1/256. Bytes, not booleans: torch multiplies floats by bytes several times as fast.
    """
    threshold = min(round(256 * p), 255)
    n = math.prod(shape)
    words = torch.empty((n + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
    drawn = words.view(torch.uint8)[:n].view(shape)
    return torch.ge(drawn, threshold, out=torch.empty(shape, dtype=torch.uint8)), 256 / (256 - threshold)


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        mask, ctx.scale = kept(x.shape, p)
        ctx.save_for_backward(mask)
        return (x * mask).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return (grads[0] * mask).mul_(ctx.scale), None


class Dropout(nn.Module):
    """Zero each element with probability ``p`` and scale the rest; ``p`` is rounded to 1/256 on the CPU."""

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout must lie in [0, 1), found {p}")
        self.p = p

    @property
    def active(self) -> bool:
        """Whether anything is dropped at present."""
        return self.training and self.p > 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        return _ByteDropout.apply(x, self.p)  # type: ignore[no-untyped-call]
