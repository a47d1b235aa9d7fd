"""RMS norm in the few passes that it takes; torch's own is put together from many on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """``x / √(mean(x²) + eps) · weight`` over the last axis; the same weights and numbers as ``nn.RMSNorm``.

    Zhang and Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019 (arXiv 1910.07467).
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` → ``[..., D]``."""
        if x.device.type != "cpu" or x.dtype != self.weight.dtype:
            return torch.nn.functional.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return _FewPasses.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]


class _FewPasses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, inverse = ctx.saved_tensors
        grad, unit = grads[0], x * inverse
        along = grad * unit
        of_weight = along.flatten(0, -2).sum(0)
        mean = (along @ weight).div_(x.shape[-1]).unsqueeze(-1)
        return (grad * weight).addcmul_(unit, mean, value=-1).mul_(inverse), of_weight, None
