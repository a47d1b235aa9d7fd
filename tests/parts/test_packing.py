"""Packed sequences: nothing is lost by packing, and attention is that of each sequence on its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from palate.parts import packing as packing_module
from palate.parts.dropout import Dropout
from palate.parts.packing import Packing, attention

H, d = 2, 4

LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=40).filter(any).map(lambda n: sorted(n, reverse=True))


def packed(lengths: list[int], *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((sum(lengths), *shape), generator=generator, dtype=torch.float64).requires_grad_()


def plain_attention(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], causal: bool) -> Tensor:
    """Softmax attention of each sequence by itself, in the textbook's words."""
    done = []
    for q_, k_, v_ in zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True):
        scores = torch.einsum("ihd,jhd->hij", q_, k_) / d**0.5
        if causal:
            scores = scores.masked_fill(torch.ones(len(q_), len(q_)).triu(1).bool(), -torch.inf)
        done.append(torch.einsum("hij,jhd->ihd", scores.softmax(-1), v_))
    return torch.cat(done)


@settings(deadline=None, max_examples=60)
@given(lengths=LENGTHS, waste=st.floats(0.1, 1.0))
def test_padding_and_unpadding_lose_nothing(lengths: list[int], waste: float) -> None:
    packing = Packing(torch.tensor(lengths), waste=waste)
    x = packed(lengths, 3)
    assert sum(group.b for group in packing.groups) == sum(n > 0 for n in lengths)
    assert [group.start for group in packing.groups] == [0, *(group.stop for group in packing.groups[:-1])]
    for group in packing.groups:
        padded = group.pad(x)
        assert padded.shape == (group.b, group.longest, 3)
        for row, sequence in enumerate(
            x[group.start : group.stop].split([n for n in lengths if n][group.row :][: group.b])
        ):
            assert torch.equal(padded[row, : len(sequence)], sequence)
            assert not padded[row, len(sequence) :].any(), "the rest of a padded row is zero"
    back = packing.apply(lambda padded, group: padded * 2, x)
    assert torch.equal(back, 2 * x)
    (gradient,) = torch.autograd.grad((back * back.detach()).sum(), x)
    torch.testing.assert_close(gradient, 4 * x.detach())


@settings(deadline=None, max_examples=60)
@given(lengths=LENGTHS, causal=st.booleans())
def test_attention_is_that_of_each_sequence_alone(lengths: list[int], causal: bool) -> None:
    q, k, v = (packed(lengths, H, d, seed=seed) for seed in range(3))
    mine = attention(q, k, v, Packing(torch.tensor(lengths)), causal=causal)
    plain = plain_attention(q, k, v, lengths, causal)
    torch.testing.assert_close(mine, plain)
    weights = packed(lengths, H, d, seed=7).detach()
    for own, expected in zip(
        torch.autograd.grad((mine * weights).sum(), (q, k, v)),
        torch.autograd.grad((plain * weights).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(own, expected)


@settings(deadline=None, max_examples=30)
@given(lengths=LENGTHS, causal=st.booleans())
def test_attention_with_dropout_when_nothing_happens_to_fall(lengths: list[int], causal: bool) -> None:
    """The hand-written node with a mask of ones must be plain attention, value and gradients."""
    q, k, v = (packed(lengths, H, d, seed=seed) for seed in range(3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing_module, "kept", lambda shape, p: (torch.ones(shape, dtype=torch.uint8), 1.0))
        mine = attention(q, k, v, Packing(torch.tensor(lengths)), causal=causal, drop=Dropout(0.5))
        weights = packed(lengths, H, d, seed=7).detach()
        own = torch.autograd.grad((mine * weights).sum(), (q, k, v))
    plain = plain_attention(q, k, v, lengths, causal)
    torch.testing.assert_close(mine, plain)
    for mine_, expected in zip(own, torch.autograd.grad((plain * weights).sum(), (q, k, v)), strict=True):
        torch.testing.assert_close(mine_, expected)


@pytest.mark.parametrize("causal", [True, False])
def test_the_gradient_of_attention_with_dropout_uses_the_same_mask(causal: bool) -> None:
    """Numerical derivatives with the seed held still."""
    lengths = [5, 5, 3, 2]
    packing, drop = Packing(torch.tensor(lengths)), Dropout(0.4)

    def seeded_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        torch.manual_seed(3)
        return attention(q, k, v, packing, causal=causal, drop=drop)

    inputs = tuple(packed(lengths, 1, 3, seed=seed) for seed in range(3))
    assert torch.autograd.gradcheck(seeded_attention, inputs)


def test_dropout_falls_on_attention_weights_at_its_rate_and_not_in_eval_mode() -> None:
    torch.manual_seed(0)
    lengths = [1] * 4000  # one event attends to itself with weight 1: what comes out is the mask
    q, k = (packed(lengths, 1, 1, seed=seed) for seed in range(2))
    v, packing, drop = torch.ones(4000, 1, 1, dtype=torch.float64), Packing(torch.tensor(lengths)), Dropout(0.25)
    mixed = attention(q, k, v, packing, drop=drop)
    assert float((mixed == 0).double().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(mixed.detach().max()) == pytest.approx(4 / 3)
    torch.testing.assert_close(attention(q, k, v, packing, drop=drop.eval()), v)


@pytest.mark.parametrize("drop", [None, Dropout(0.5)])
def test_attention_under_bf16_autocast_learns(drop: Dropout | None) -> None:
    lengths = [9, 9, 4, 1]
    q, k, v = (packed(lengths, H, d, seed=seed).float().detach().requires_grad_() for seed in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), Packing(torch.tensor(lengths)), drop=drop)
    for gradient in torch.autograd.grad(mixed.float().square().sum(), (q, k, v)):
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_places_and_last_events() -> None:
    packing = Packing(torch.tensor([3, 2, 0]))
    assert packing.positions.tolist() == [0, 1, 2, 0, 1]
    assert packing.places_from_end(5).tolist() == [2, 3, 4, 3, 4]
    assert packing.last.tolist() == [2, 4]


def test_sequences_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="longest first"):
        Packing(torch.tensor([2, 3]))


def test_spare_lets_a_group_hold_padding_up_to_its_cost() -> None:
    lengths = torch.tensor([9, 9, 8, 8, 5, 2, 1])

    def groups(spare: int) -> list[tuple[int, int]]:
        return [(group.row, group.b) for group in Packing(lengths, spare=spare).groups]

    assert groups(0) == [(0, 2), (2, 2), (4, 1), (5, 1), (6, 1)]
    # 2 · (81 - 64) = 34 pairs in vain are let pass, 56 more are not; then 21 of the next, then 24 more are too many.
    assert groups(44) == [(0, 4), (4, 2), (6, 1)]
    assert groups(10**6) == [(0, 7)]


def test_groups_do_not_change_what_attention_gives() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([7, 7, 6, 3, 3, 1])
    q, k, v = torch.randn(3, int(lengths.sum()), 2, 4).double()
    for causal in (True, False):
        plain = attention(q, k, v, Packing(lengths), causal=causal)
        for spare in (0, 30, 1000):
            torch.testing.assert_close(attention(q, k, v, Packing(lengths, spare=spare), causal=causal), plain)
