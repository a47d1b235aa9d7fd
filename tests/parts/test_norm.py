"""RMS norm: torch's own numbers and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from palate.parts.norm import RMSNorm


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8)])
def test_numbers_and_gradients_are_those_of_torch(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    ours, theirs = RMSNorm(8, 1e-6).double(), nn.RMSNorm(8, 1e-6).double()
    with torch.no_grad():
        ours.weight.copy_(torch.randn(8))
    theirs.load_state_dict(ours.state_dict())
    x, y = (torch.randn(shape, dtype=torch.float64).requires_grad_() for _ in range(2))
    y.data.copy_(x.data)
    grad = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(y))
    ours(x).backward(grad)
    theirs(y).backward(grad)
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_gradients_agree_with_differences() -> None:
    norm = RMSNorm(4).double()
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def normed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(norm, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(normed, (x, norm.weight))


def test_rows_of_zeros_stay_zeros() -> None:
    x = torch.zeros(2, 4, requires_grad=True)
    RMSNorm(4)(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
