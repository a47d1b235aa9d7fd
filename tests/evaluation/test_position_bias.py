"""What the order of candidates does to a ranking: planted, and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from palate.evaluation.position_bias import PositionBias, correlation, midranks


def asked(judge: str, n: int = 200, orders: int = 3, c: int = 8) -> PositionBias:
    """``n`` questions answered by a judge that copies, reverses, knows, or half of each."""
    rng, bias = np.random.default_rng(0), PositionBias()
    for _ in range(n):
        truth = rng.normal(size=c)
        shown = np.stack([rng.permutation(c) for _ in range(orders)])
        place = np.arange(c, dtype=float)
        worth = {"copies": -place, "reverses": place, "half": truth[shown] - 0.5 * (place - place.mean()) / place.std()}
        bias.add(np.broadcast_to(worth.get(judge, truth[shown]), shown.shape).astype(float), shown)
    return bias


def test_the_figures_tell_who_copies_and_who_knows() -> None:
    copies, reverses, knows, half = (asked(judge) for judge in ("copies", "reverses", "knows", "half"))
    assert copies.copied.interval.value == pytest.approx(1)
    assert reverses.copied.interval.value == pytest.approx(-1)
    assert abs(copies.agreed.interval.value) < 0.05
    assert knows.agreed.interval.value == pytest.approx(1)
    span = knows.copied.interval
    assert span.low < 0 < span.high
    assert 0.2 < half.copied.interval.low < half.copied.interval.high < 0.7
    assert 0.4 < half.agreed.interval.value < 0.95
    np.testing.assert_allclose(copies.by_place, np.arange(1, 9))
    np.testing.assert_allclose(knows.by_place, 4.5, atol=0.4)
    assert "correlate +1.00 [+1.00, +1.00]" in str(copies)
    assert "nothing was asked" in str(PositionBias())


def test_it_is_spearmans_with_shared_places() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 4, 9).astype(float), rng.normal(size=9)
    np.testing.assert_allclose(midranks(one), rankdata(-one))
    assert correlation(midranks(one), midranks(other)) == pytest.approx(spearmanr(one, other).statistic)
    assert np.isnan(correlation(np.ones(3), np.arange(3.0)))
    bias = PositionBias()
    bias.add(np.zeros((2, 3)), np.array([[0, 1, 2], [2, 1, 0]]))
    assert bias.copied.n == 0, "who finds all alike says nothing of the order"
