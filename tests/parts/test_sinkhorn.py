"""Even spreading: columns exact, rows only with many rounds or softness, and what float32 cannot hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from palate.core.errors import TrainingError
from palate.parts.kmeans import squared_distances
from palate.parts.sinkhorn import UniformConfig, sinkhorn


def clumps(n: int = 1024, size: int = 256, seed: int = 0) -> Tensor:
    """``[n, size]`` squared distances of points in 16 clumps to codes spread over the same space."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(16, 32, generator=g)
    points = centres[torch.randint(16, (n,), generator=g)] + 0.3 * torch.randn(n, 32, generator=g)
    return squared_distances(points, torch.randn(size, 32, generator=g))


def rounds_by_hand(distances: Tensor, epsilon: float, rounds: int) -> Tensor:
    """The published loop, entry by entry: scale to [-1, 1], then rows and columns in turn, in float64."""
    low, high = distances.min(), distances.max()
    middle = (low + high) / 2
    scaled = ((distances - middle) / (high - middle + 1e-5)).double()
    plan = torch.exp(-scaled / epsilon)
    plan = plan / plan.sum()
    for _ in range(rounds):
        plan = plan / plan.sum(1, keepdim=True) / plan.shape[0]
        plan = plan / plan.sum(0, keepdim=True) / plan.shape[1]
    return plan * plan.shape[0]


@pytest.mark.parametrize(("epsilon", "rounds"), [(0.003, 50), (0.05, 7), (0.003, 1)])
def test_the_two_scales_are_the_published_loop(epsilon: float, rounds: int) -> None:
    distances = clumps()
    plan = sinkhorn(distances, UniformConfig(epsilon=epsilon, rounds=rounds))
    torch.testing.assert_close(plan, rounds_by_hand(distances, epsilon, rounds), rtol=1e-8, atol=1e-12)


def test_columns_are_exact_and_rows_need_rounds_or_softness() -> None:
    distances = clumps()
    plan = sinkhorn(distances, UniformConfig())
    assert float((plan.sum(0) - 1024 / 256).abs().max()) < 1e-10
    assert float((plan.sum(1) - 1).abs().max()) > 0.05  # fifty rounds at 0.003 are not enough: that is known
    for settings, tolerance in ((UniformConfig(rounds=1000), 1e-5), (UniformConfig(epsilon=0.05), 1e-9)):
        plan = sinkhorn(distances, settings)
        assert float((plan.sum(1) - 1).abs().max()) < tolerance


def test_codes_are_used_evenly() -> None:
    distances = clumps()
    near = np.bincount(distances.argmin(1).numpy(), minlength=256)
    even = np.bincount(sinkhorn(distances, UniformConfig()).argmax(1).numpy(), minlength=256)
    assert (near > 0).sum() < 130
    assert near.max() > 30
    assert (even > 0).sum() > 250
    assert even.max() <= 9


def test_logarithms_hold_what_float32_cannot() -> None:
    distances = clumps()
    plain = torch.exp(-((distances - distances.mean()) / distances.std()) / 0.003)
    assert not bool(torch.isfinite(plain).all())  # what a naive float32 loop would begin with
    settings = UniformConfig(domain="log")
    single, double = sinkhorn(distances, settings), sinkhorn(distances.double(), settings)
    assert bool(torch.isfinite(single).all())
    torch.testing.assert_close(double, sinkhorn(distances.double(), UniformConfig()), rtol=1e-6, atol=1e-9)
    assert float((single.argmax(1) == double.argmax(1)).double().mean()) > 0.9
    tiny = UniformConfig(epsilon=1e-4, domain="log")
    assert bool(torch.isfinite(sinkhorn(distances, tiny)).all())
    with pytest.raises(TrainingError, match=r"uniform.epsilon=0.0001 is too small for float64: set uniform.domain=log"):
        sinkhorn(distances, UniformConfig(epsilon=1e-4))


def test_problems_side_by_side_are_problems_alone() -> None:
    many = torch.stack([clumps(40, 16, seed) for seed in range(5)])
    together = sinkhorn(many, UniformConfig())
    for one, plan in zip(many, together, strict=True):
        torch.testing.assert_close(plan, sinkhorn(one, UniformConfig()))
