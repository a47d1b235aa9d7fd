"""The contrastive loss by hand, what is no negative, and what is done about a collapse."""

from __future__ import annotations

import math

import pytest
import torch

from palate.core.errors import TrainingError
from palate.parts.contrastive import Alarm, Scale, draw_pool, info_nce

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def loss(states, targets, pool, *, target_rows, pool_rows, scale=2.0, **more):  # type: ignore[no-untyped-def]
    value, share = info_nce(
        torch.tensor(states), torch.tensor(targets), torch.tensor(pool), torch.tensor(scale),
        target_rows=torch.tensor(target_rows), pool_rows=torch.tensor(pool_rows), **more,
    )  # fmt: skip
    return float(value), share


def test_the_loss_of_two_positions_by_hand() -> None:
    """Lengths do not matter; position 0 looks at its target, position 1 is at a right angle to its own."""
    value, share = loss(
        [[5.0, 0.0], [3.0, 0.0]], [EAST, NORTH], [NORTH, WEST], target_rows=[7, 8], pool_rows=[1, 2], cap=0.9
    )
    # Row 1 of the pool is no other text than target 8 (cosine 1) and is left out there.
    first = -math.log(math.exp(2) / (math.exp(2) + math.exp(0) + math.exp(-2)))
    second = -math.log(math.exp(0) / (math.exp(0) + math.exp(-2)))
    assert value == pytest.approx((first + second) / 2, abs=1e-6)
    assert share == pytest.approx(1 / 4)


def test_a_negative_that_is_the_target_is_masked_by_its_row_alone() -> None:
    """Also where its vector differs, and it counts for no share of false negatives."""
    value, share = loss([EAST], [EAST], [WEST, NORTH], target_rows=[2], pool_rows=[2, 3])
    assert value == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 1)), abs=1e-6)
    assert share == 0.0


def test_collapsed_vectors_keep_their_negatives() -> None:
    """All vectors alike: the public rule would leave nothing out of which to learn and call it loss 0."""
    value, share = loss([EAST], [EAST], [EAST, EAST, EAST], target_rows=[0], pool_rows=[1, 2, 3])
    assert value == pytest.approx(math.log(4), abs=1e-6)
    assert share == 1.0


def test_the_share_of_false_negatives_decides_by_position() -> None:
    """Two of three are level with the first target, none with the second: only the first keeps them."""
    value, _ = loss([EAST, EAST], [EAST, NORTH], [EAST, EAST, WEST], target_rows=[0, 9], pool_rows=[1, 2, 3])
    first = -math.log(math.exp(2) / (3 * math.exp(2) + math.exp(-2)))
    second = -math.log(1 / (1 + 2 * math.exp(2) + math.exp(-2)))
    assert value == pytest.approx((first + second) / 2, abs=1e-5)


def test_gradients_reach_states_targets_pool_and_temperature() -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(4, 3, requires_grad=True) for _ in range(3)]
    scale = Scale()
    value, _ = info_nce(*tensors, scale(), target_rows=torch.arange(4), pool_rows=torch.arange(4, 8))
    value.backward()
    assert all(float(tensor.grad.abs().sum()) > 0 for tensor in tensors)  # type: ignore[union-attr]
    assert scale.log.grad is not None


def test_the_temperature_is_clamped_whenever_it_is_read() -> None:
    scale = Scale(0.07)
    assert float(scale().detach()) == pytest.approx(1 / 0.07, rel=1e-5)
    for log, expected in ((9.0, 100.0), (-3.0, 1.0)):
        with torch.no_grad():
            scale.log.fill_(log)
        assert float(scale().detach()) == pytest.approx(expected, rel=1e-5)


def test_half_precision_outside_changes_no_loss_inside() -> None:
    torch.manual_seed(0)
    states, targets, pool = torch.randn(5, 8), torch.randn(5, 8), torch.randn(9, 8)
    rows = {"target_rows": torch.arange(5), "pool_rows": torch.arange(5, 14)}
    exact, _ = info_nce(states, targets, pool, torch.tensor(100.0), **rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = info_nce(states, targets, pool, torch.tensor(100.0), **rows)
    assert torch.equal(exact, inside)


def test_an_alarm_rings_when_a_collapse_lasts() -> None:
    alarm = Alarm(cap=0.5, steps=3)
    for share in (0.9, 0.9, 0.2, 0.8, 0.8):
        alarm.hear(share)
    assert alarm.collapsed
    with pytest.raises(TrainingError, match=r"item vectors have collapsed: 70% .* for 3 steps"):
        alarm.hear(0.7)


def test_the_pool_holds_distinct_items_of_those_that_may_be_drawn() -> None:
    eligible = torch.tensor([3, 5, 8, 9, 11])
    torch.manual_seed(0)
    drawn = [tuple(draw_pool(eligible, 3).tolist()) for _ in range(300)]
    assert all(len(set(pool)) == 3 and set(pool) <= set(eligible.tolist()) for pool in drawn)
    counts = torch.bincount(torch.tensor(drawn).flatten(), minlength=12)[eligible]
    assert counts.min() > 130, "each of five in three of five draws"
    assert draw_pool(eligible, 99).tolist() == eligible.tolist()
