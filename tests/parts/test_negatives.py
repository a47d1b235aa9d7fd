"""Negatives are drawn as they say."""

from __future__ import annotations

import numpy as np
import torch

from palate.parts.negatives import Popularity

COUNTS = np.array([0, 1, 9, 89, 0, 396])


def counted() -> Popularity:
    popularity = Popularity(len(COUNTS))
    popularity.count(COUNTS)
    return popularity


def shares(rows: torch.Tensor) -> np.ndarray:
    return np.bincount(rows.reshape(-1).numpy(), minlength=len(COUNTS)) / rows.numel()


def test_uniform_and_by_popularity() -> None:
    torch.manual_seed(0)
    popularity, n = counted(), 200_000
    expected = (COUNTS + 1) / (COUNTS + 1).sum()
    for by_popularity, share in ((True, expected), (False, np.full(6, 1 / 6))):
        found = shares(popularity.draw((n // 4, 4), by_popularity=by_popularity))
        assert (np.abs(found - share) < 5 * np.sqrt(share * (1 - share) / n)).all()


def test_log_share_is_the_log_probability_of_a_draw() -> None:
    popularity = counted()
    np.testing.assert_allclose(np.exp(popularity.log_share.numpy()), (COUNTS + 1) / (COUNTS + 1).sum(), rtol=1e-6)
    assert np.exp(Popularity(4).log_share.numpy()).tolist() == [0.25] * 4


def test_rare_items_are_drawn_from_a_very_large_catalogue() -> None:
    """Inexact sums would lose the tail: of a million equal items, the last half comes as often as the first."""
    torch.manual_seed(0)
    n = 1_000_000
    popularity = Popularity(n)
    popularity.count(np.full(n, 3))
    rows = popularity.draw((400_000,), by_popularity=True)
    halves = (rows >= n // 2).double().mean()
    assert abs(float(halves) - 0.5) < 0.004
    assert abs(len(rows.unique()) / (n * (1 - np.exp(-0.4))) - 1) < 0.005


def test_draws_follow_the_seed() -> None:
    popularity = counted()
    for by_popularity in (True, False):
        drawn = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            drawn.append(popularity.draw((50,), by_popularity=by_popularity))
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])
