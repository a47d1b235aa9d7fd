"""Dropout whose random numbers are cheap on a CPU: one random byte an element instead of one Bernoulli draw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        dropped = (words.view(torch.uint8)[: x.numel()] < threshold).view(x.shape)
        ctx.save_for_backward(dropped)
        ctx.scale = 256 / (256 - threshold)
        return (x * ctx.scale).masked_fill_(dropped, 0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (dropped,) = ctx.saved_tensors
        return (grads[0] * ctx.scale).masked_fill_(dropped, 0), None


class Dropout(nn.Module):
    """Zero each element with probability ``p`` and scale the rest; ``p`` is rounded to 1/256 on the CPU."""

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout must lie in [0, 1), found {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        return _ByteDropout.apply(x, round(256 * self.p))  # type: ignore[no-untyped-call]
