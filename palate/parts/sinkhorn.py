"""Sinkhorn-Knopp: spread points evenly over codes.

The entropic transport plan of Cuturi, "Sinkhorn Distances", NIPS 2013, as the uniform mapping of LC-Rec (Zheng et al.
2024, arXiv 2311.09049) uses it: rows and columns are scaled in turn and the loop ends on columns, so columns always
sum to n / V while rows need many rounds or a larger ``epsilon`` to sum to one. That is the published behaviour.
Shapes: n points, V codes; any leading dimensions are problems of their own.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from palate.core.config import Config
from palate.core.errors import TrainingError


class UniformConfig(Config):
    """How points are spread evenly over the codes of a level."""

    epsilon: float = Field(0.003, gt=0)
    """Softness of the plan, in units of half the range of distances: small = each point takes its nearest free code."""
    rounds: int = Field(50, ge=1)
    domain: Literal["float64", "log"] = "float64"
    """float64 holds exp(1 / 0.003) and is fast; the logarithmic one holds any epsilon."""


def sinkhorn(distances: Tensor, config: UniformConfig) -> Tensor:
    """``[..., n, V]`` the plan for ``distances`` ``[..., n, V]``, its columns summing to n / V.

    Distances are moved to [-1, 1] first. Raises ``TrainingError`` where float64 cannot hold ``epsilon``.
    """
    scaled = _scaled(distances)
    if config.domain == "log":
        return _in_logarithms(scaled, config)
    rows, columns, kernel = _scalings(scaled, config)
    plan = distances.shape[-2] * (rows * kernel * columns)
    if not bool(torch.isfinite(plan).all()):
        raise TrainingError(f"uniform.epsilon={config.epsilon:g} is too small for float64: set uniform.domain=log")
    return plan


def _scaled(distances: Tensor) -> Tensor:
    low, high = distances.amin((-2, -1), keepdim=True), distances.amax((-2, -1), keepdim=True)
    middle = (high + low) / 2
    return (distances - middle) / (high - middle + 1e-5)


def _scalings(scaled: Tensor, config: UniformConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Row scales ``[..., n, 1]``, column scales ``[..., 1, V]`` and the kernel: the plan is their product.

    Only the two scales change from round to round, so a round is two products of the kernel with a vector.
    """
    n, n_codes = scaled.shape[-2:]
    scaled = scaled.double()
    kernel = torch.exp((scaled.amin(-1, keepdim=True) - scaled) / config.epsilon)
    transposed = kernel.mT.contiguous()
    columns = torch.ones_like(kernel[..., :1, :]).mT
    rows = torch.empty(0)
    for _ in range(config.rounds):
        rows = 1 / (n * (kernel @ columns))
        columns = 1 / (n_codes * (transposed @ rows))
    return rows, columns.mT, kernel


def _in_logarithms(scaled: Tensor, config: UniformConfig) -> Tensor:
    """The same rounds on logarithms; nothing under- or overflows, in any precision."""
    n, n_codes = scaled.shape[-2:]
    plan = -scaled / config.epsilon
    rows_to, columns_to = torch.log(torch.tensor(1.0 / n)), torch.log(torch.tensor(1.0 / n_codes))
    for _ in range(config.rounds):
        plan = plan - plan.logsumexp(-1, keepdim=True) + rows_to
        plan = plan - plan.logsumexp(-2, keepdim=True) + columns_to
    return n * plan.exp()


def column_prices(distances: Tensor) -> Tensor:
    """``[V]`` what each code costs on top of ``distances`` ``[n, V]`` when all are to be asked for equally often."""
    if distances.shape[0] == 0:
        return distances.new_zeros(distances.shape[1])
    config = UniformConfig(epsilon=0.05, rounds=10)
    _, columns, _ = _scalings(_scaled(distances), config)
    half_range = (distances.max() - distances.min()) / 2 + 1e-5
    return -config.epsilon * half_range * torch.log(columns[0])
