"""The interval against scipy, against a plain loop, and against its own promise of 95 %."""

from __future__ import annotations

import numpy as np
import pytest

from palate.evaluation.uncertainty import (
    interval,
    intervals,
    over_seeds,
    per_user,
    resampled_means,
    seed_weights,
    user_counts,
)


def test_it_agrees_with_scipy() -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).beta(0.3, 2, 400)
    ours = intervals([values[:, None]], resamples=20_000)[0]
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx(values.mean())
    assert abs(ours.low - theirs.low) < 0.03 * width
    assert abs(ours.high - theirs.high) < 0.03 * width
    assert ours.n == 400


def test_every_column_is_the_plain_mean_over_the_drawn_users() -> None:
    rng = np.random.default_rng(1)
    values = rng.random((50, 3))
    values[rng.random(50) < 0.6, 1] = np.nan
    means = resampled_means(values, resamples=40, seed=7)
    counts = np.vstack(list(user_counts(50, resamples=40, seed=7)))
    assert (counts.sum(axis=1) == 50).all()
    for row, drawn in zip(means, counts.astype(int), strict=True):
        again = np.repeat(values, drawn, axis=0)
        np.testing.assert_allclose(row, np.nanmean(again, axis=0))


def test_all_columns_and_all_systems_meet_the_same_resamples() -> None:
    values = np.random.default_rng(2).random((3000, 1))
    once = resampled_means(values)
    beside = resampled_means(np.hstack([np.ones((3000, 5)), values]))
    np.testing.assert_allclose(once[:, 0], beside[:, 5])
    np.testing.assert_allclose(beside[:, 0], 1)


def test_the_matrix_is_never_held_whole() -> None:
    sizes = [counts.shape for counts in user_counts(300_000, resamples=20)]
    assert sum(rows for rows, _ in sizes) == 20
    assert max(rows for rows, _ in sizes) * 300_000 <= 1 << 21


def test_cases_of_one_user_are_averaged_first() -> None:
    users, means = per_user(np.array([5, 2, 5, 5]), np.array([[1.0, 1], [4, np.nan], [2, np.nan], [6, 3]]))
    assert users.tolist() == [2, 5]
    np.testing.assert_array_equal(means, [[4, np.nan], [3, 2]])


def test_a_slice_without_anybody_has_no_interval() -> None:
    span = intervals([np.full((20, 1), np.nan)], resamples=50)[0]
    assert np.isnan([span.value, span.low, span.high]).all()
    assert span.n == 0


def test_95_percent_means_95_percent() -> None:
    rng = np.random.default_rng(3)
    truth = 0.2
    hit = 0
    for trial in range(300):
        span = intervals([(rng.random((150, 1)) < truth).astype(float)], resamples=500, seed=trial)[0]
        hit += span.low <= truth <= span.high
    assert 0.91 <= hit / 300 <= 0.98


def test_95_percent_holds_over_users_and_seeds() -> None:
    """Each repetition trains five new seeds and asks new users; the luck of training is as large as that of users."""
    rng = np.random.default_rng(4)
    hit, hit_without = 0, 0
    n_seeds, n_users = 5, 100
    for trial in range(300):
        luck = rng.normal(0, 0.1, n_seeds)
        values = 0.5 + luck[:, None] + rng.normal(0, 1.0, (1, n_users))
        tables = list(values[:, :, None])
        span = intervals(tables, resamples=500, seed=trial)[0]
        hit += span.low <= 0.5 <= span.high
        blind = intervals([values.mean(axis=0)[:, None]], resamples=500, seed=trial)[0]
        hit_without += blind.low <= 0.5 <= blind.high
    assert 0.91 <= hit / 300 <= 0.98
    assert hit_without < hit


def test_the_spread_between_seeds_is_not_understated() -> None:
    """Users are all alike, so that all variance is that of the mean of three seeds: s² / 3, not 2/3 of it."""
    seeds = np.array([0.1, 0.4, 0.7])
    weights = seed_weights(3, resamples=200_000)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    means = over_seeds(np.broadcast_to(seeds[None, :, None], (200_000, 3, 1)), weights)
    assert means.var() == pytest.approx(seeds.var(ddof=1) / 3, rel=0.02)
    assert (seed_weights(1, resamples=4) == 1).all()


def test_seeds_of_different_runs_are_drawn_apart() -> None:
    assert (seed_weights(5, run=1) != seed_weights(5, run=2)).any()
    assert (seed_weights(5, run=1) == seed_weights(5, run=1)).all()


def test_alike_seeds_change_nothing() -> None:
    values = np.random.default_rng(6).random((200, 2))
    once, thrice = intervals([values]), intervals([values] * 3)
    for one, three in zip(once, thrice, strict=True):
        assert (one.low, one.high) == pytest.approx((three.low, three.high))


def test_resamples_without_a_value_are_left_out() -> None:
    span = interval(0.5, np.array([np.nan, 0.4, 0.6, np.nan]), 3)
    assert 0.4 <= span.low < span.high <= 0.6
