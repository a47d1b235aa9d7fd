"""Losses against plain torch and hand-computed numbers: values, gradients, and what -inf does to them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from palate.parts import losses

P, D, N = 37, 8, 23


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def some_targets(p: int = P, n: int = N) -> Tensor:
    return torch.randint(0, n, (p,), generator=torch.Generator().manual_seed(9))


def gradients(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


@settings(deadline=None, max_examples=25)
@given(rows=st.integers(1, 50), p=st.integers(1, 60), with_bias=st.booleans(), seed=st.integers(0, 99))
def test_full_softmax_is_cross_entropy_whatever_the_chunks(rows: int, p: int, with_bias: bool, seed: int) -> None:
    hidden, table = drawn(p, D, seed=seed), drawn(N, D, seed=seed + 1)
    bias = drawn(N, seed=seed + 2) if with_bias else None
    targets = some_targets(p)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "CPU_ROWS", rows)
        mine = losses.full_softmax(hidden, table, targets, bias)
    plain = F.cross_entropy(hidden @ table.T + (0 if bias is None else bias), targets)
    torch.testing.assert_close(mine, plain)
    inputs = [hidden, table] + ([bias] if bias is not None else [])
    for own, expected in zip(gradients(3 * mine, *inputs), gradients(3 * plain, *inputs), strict=True):
        torch.testing.assert_close(own, expected)


def test_full_softmax_stays_exact_where_the_target_is_hopeless() -> None:
    hidden = torch.tensor([[300.0, 0.0]], requires_grad=True)
    table = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.5, 0.0]])
    loss = losses.full_softmax(hidden, table, torch.tensor([1]))
    assert float(loss.detach()) == pytest.approx(600.0, abs=1e-3)
    (grad,) = gradients(loss, hidden)
    assert grad[0, 0] == pytest.approx(2.0)


def test_full_softmax_limits_the_logits_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk never has more than LOGIT_BYTES, here three positions of float32 logits."""
    monkeypatch.setattr(losses, "LOGIT_BYTES", 3 * 4 * N)
    seen: list[int] = []
    plain = losses.multiply

    def spy(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> Tensor:
        seen.append(min(a.shape))  # D and N are larger than a chunk
        return plain(a, b, out, add=add)

    monkeypatch.setattr(losses, "multiply", spy)
    losses.full_softmax(drawn(P, D), drawn(N, D), some_targets())
    assert len(seen) == 3 * math.ceil(P / 3)
    assert max(seen) == 3


def test_full_softmax_without_gradients_gives_the_same_value() -> None:
    hidden, table, targets = drawn(P, D), drawn(N, D, seed=1), some_targets()
    learning = losses.full_softmax(hidden, table, targets)
    with torch.no_grad():
        assert torch.equal(losses.full_softmax(hidden, table, targets), learning)


def test_a_frozen_table_gets_no_gradient_and_the_states_do() -> None:
    hidden, table, targets = drawn(P, D), drawn(N, D, seed=1).detach(), some_targets()
    (own,) = gradients(losses.full_softmax(hidden, table, targets), hidden)
    (plain,) = gradients(F.cross_entropy(hidden @ table.T, targets), hidden)
    torch.testing.assert_close(own, plain)


def test_full_softmax_under_bf16_autocast_is_close_to_fp32() -> None:
    hidden, table = drawn(400, 64).float().detach().requires_grad_(), drawn(300, 64, seed=1).float().detach()
    table = (table / 8).requires_grad_()
    targets = some_targets(400, 300)
    exact = losses.full_softmax(hidden, table, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = losses.full_softmax(hidden, table, targets)
    assert rough.dtype == torch.float32
    assert float(rough.detach()) == pytest.approx(float(exact.detach()), rel=2e-3)
    for own, expected in zip(gradients(rough, hidden, table), gradients(exact, hidden, table), strict=True):
        assert own.dtype == torch.float32
        assert float((own - expected).norm() / expected.norm()) < 0.01


def test_scores_of_own_and_of_shared_negatives() -> None:
    hidden, table, targets = drawn(P, D), drawn(N, D, seed=1), some_targets()
    own = torch.randint(0, N, (P, 5), generator=torch.Generator().manual_seed(3))
    shared = own[0]
    for negatives, each in ((own, own), (shared, shared.expand(P, 5))):
        logits = hidden @ table.T
        positive, negative = losses.positive_and_negatives(hidden, table, targets, negatives)
        torch.testing.assert_close(positive, logits.gather(1, targets[:, None])[:, 0])
        expected = logits.gather(1, each).masked_fill(each == targets[:, None], -math.inf)
        torch.testing.assert_close(negative, expected)
        finite = negative.isfinite()
        assert not finite.all(), "the draw must hold a negative that is the target"
        for a, b in zip(
            gradients(positive.sum() + negative[finite].square().sum(), hidden, table),
            gradients(logits.gather(1, targets[:, None]).sum() + expected[finite].square().sum(), hidden, table),
            strict=True,
        ):
            torch.testing.assert_close(a, b)


def test_sampled_softmax_by_hand() -> None:
    """s⁺ = 1, s⁻ = (2, 0); q⁺ = 0.5, q⁻ = (0.25, 0.125): logits 1 + ln 2, 2 + ln 4, ln 8."""
    positive, negative = torch.tensor([1.0]), torch.tensor([[2.0, 0.0]])
    log_q = torch.tensor([0.5]).log(), torch.tensor([[0.25, 0.125]]).log()
    own, first, second = 2 * math.e, 4 * math.e**2, 8.0
    assert float(losses.sampled_softmax(positive, negative, log_q)) == pytest.approx(
        -math.log(own / (own + first + second)), rel=1e-5
    )
    own, first, second = math.e, math.e**2, 1.0
    assert float(losses.sampled_softmax(positive, negative)) == pytest.approx(
        -math.log(own / (own + first + second)), rel=1e-5
    )


def test_log_q_makes_sampled_softmax_an_estimate_of_the_full_one() -> None:
    """Over all draws, Σ exp(s)/q is k times the full partition function; with many draws the losses meet."""
    hidden, table = drawn(1, D), drawn(N, D, seed=1)
    q = torch.softmax(torch.linspace(-2, 2, N, dtype=torch.float64), 0)
    target = torch.tensor([3])
    negatives = torch.multinomial(q, 40_000, replacement=True, generator=torch.Generator().manual_seed(0))[None]
    scores = hidden @ table.T
    corrected = scores.gather(1, negatives) - q.log()[negatives]
    estimate = torch.logsumexp(corrected, 1) - math.log(40_000)
    torch.testing.assert_close(estimate, torch.logsumexp(scores, 1), rtol=0.02, atol=0.02)
    positive, negative = losses.positive_and_negatives(hidden, table, target, negatives)
    by_sample = losses.sampled_softmax(positive, negative, (q.log()[target], q.log()[negatives]))
    others = torch.cat([corrected.masked_fill(negatives == 3, -math.inf), (scores - q.log())[:, 3:4]], dim=1)
    torch.testing.assert_close(by_sample, torch.logsumexp(others, 1).mean() - (scores - q.log())[0, 3])


def test_binary_cross_entropy_is_torch_s_own() -> None:
    positive, negative = drawn(P), drawn(P, 4, seed=1)
    logits = torch.cat([positive[:, None], negative], dim=1)
    truth = torch.zeros_like(logits)
    truth[:, 0] = 1
    torch.testing.assert_close(
        losses.binary_cross_entropy(positive, negative), F.binary_cross_entropy_with_logits(logits, truth)
    )


def test_beta_of_the_gsasrec_paper() -> None:
    """MovieLens-1M as in the paper: k = 256 of N = 3,706 items, t = 0.75."""
    alpha = losses.gbce_beta(256, 3706, 1.0)  # fully calibrated: the share of items that is drawn
    assert alpha == pytest.approx(0.0691, abs=1e-4)
    assert losses.gbce_beta(256, 3706, 0.75) == pytest.approx(0.302, abs=1e-3)
    assert losses.gbce_beta(256, 3706, 0.0) == pytest.approx(1.0)


def test_gbce_without_calibration_is_binary_cross_entropy() -> None:
    positive, negative = drawn(P), drawn(P, 4, seed=1)
    beta = losses.gbce_beta(4, N, 0.0)
    torch.testing.assert_close(
        losses.generalised_bce(positive, negative, beta), losses.binary_cross_entropy(positive, negative)
    )
    half = losses.generalised_bce(positive, negative, 0.5)
    saved = 0.5 * F.logsigmoid(positive).mean() / 5
    torch.testing.assert_close(half, losses.binary_cross_entropy(positive, negative) + saved)


@pytest.mark.parametrize("name", ["sampled_softmax", "binary_cross_entropy", "generalised_bce", "bpr"])
def test_a_masked_negative_changes_nothing_and_its_gradient_is_finite(name: str) -> None:
    loss = {
        "sampled_softmax": losses.sampled_softmax,
        "binary_cross_entropy": losses.binary_cross_entropy,
        "generalised_bce": lambda positive, negative: losses.generalised_bce(positive, negative, 0.3),
        "bpr": losses.bpr,
    }[name]
    hidden, table, targets = drawn(P, D), drawn(N, D, seed=1), some_targets()
    negatives = torch.randint(0, N, (P, 3), generator=torch.Generator().manual_seed(5))
    negatives[:, 1] = targets
    value = loss(*losses.positive_and_negatives(hidden, table, targets, negatives))
    assert value.isfinite()
    for gradient in gradients(value, hidden, table):
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0
    without = loss(*losses.positive_and_negatives(hidden, table, targets, negatives[:, [0, 2]]))
    scale = {"sampled_softmax": 1.0, "bpr": 2 / 3}.get(name, 3 / 4)
    torch.testing.assert_close(value, scale * without)


def test_bpr_by_hand() -> None:
    value = losses.bpr(torch.tensor([1.0]), torch.tensor([[0.0, 3.0]]))
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2
    assert float(value) == pytest.approx(expected, rel=1e-5)
