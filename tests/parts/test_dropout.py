"""Dropout by random bytes: rate, scale, gradient, seeds."""

from __future__ import annotations

import pytest
import torch

from palate.parts.dropout import Dropout, kept


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_rate_and_scale(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, 401)
    dropped = Dropout(p)(x)
    share = float((dropped == 0).float().mean())
    rounded = round(256 * p) / 256
    assert share == pytest.approx(rounded, abs=4 * (p * (1 - p) / x.numel()) ** 0.5)
    assert dropped[dropped != 0].unique().tolist() == pytest.approx([1 / (1 - rounded)])
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)


def test_elements_fall_independently_of_their_neighbours() -> None:
    torch.manual_seed(0)
    mask, _ = kept(torch.Size((1000, 256)), 0.5)
    ones = mask.float() - 0.5
    for step in (1, 2, 4, 8, 256):
        flat = ones.view(-1)
        assert abs(float((flat[:-step] * flat[step:]).mean())) < 0.002
    assert ones.mean(0).abs().max() < 0.08
    assert ones.mean(1).abs().max() < 0.16


def test_the_gradient_falls_where_the_value_fell() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 7).add(3).requires_grad_()
    dropped = Dropout(0.3)(x)
    (gradient,) = torch.autograd.grad((dropped * 2).sum(), x)
    expected = 2 * dropped.detach() / x.detach()
    torch.testing.assert_close(gradient, expected)
    assert 0 < int((gradient == 0).sum()) < gradient.numel()


def test_nothing_falls_in_eval_mode_nor_at_rate_zero() -> None:
    x = torch.randn(5, 5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert not Dropout(0.5).eval().active
    assert Dropout(0.5).active


def test_equal_seeds_drop_the_same_and_other_seeds_another_part() -> None:
    x, drop = torch.ones(64, 64), Dropout(0.5)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(drop(x))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9])
def test_sizes_that_are_no_multiple_of_eight(n: int) -> None:
    assert Dropout(0.5)(torch.ones(n)).shape == (n,)


def test_views_and_extreme_rates() -> None:
    torch.manual_seed(0)
    turned = torch.ones(30, 20).T
    assert set(Dropout(0.5)(turned).unique().tolist()) == {0.0, 2.0}
    nearly_all = Dropout(0.999)(torch.ones(10_000))
    assert nearly_all.isfinite().all()


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5])
def test_a_rate_outside_zero_to_one_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="dropout must lie in"):
        Dropout(p)
