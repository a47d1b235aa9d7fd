"""How sure a mean is: 95 % percentile bootstrap over users, with seeds as an outer level.

The unit is the user: cases of one user are averaged first, because they are not independent. One resample draws as
many users as there are, with replacement (Efron 1979); 2,000 resamples; the 2.5 % and 97.5 % points of the resampled
means are the interval. The draws follow from a seed and the number of users alone, so every system judged on the same
users meets the same resamples, and differences between systems are resampled in pairs.

Several seeds: a run's value for a user is the mean over its seeds, and each resample also draws seeds. Seeds are few,
so S - 1 of the S are drawn with replacement (Rao & Wu 1988, "Resampling inference with complex survey data"): drawing
S would understate the variance between seeds by the factor (S - 1) / S, a third for three seeds. Seeds of different
systems are drawn independently, for seed 0 of one has nothing to do with seed 0 of another. One seed says nothing
about the luck of training: its interval speaks of users only.

Shapes: U users, M columns (a system, seed and metric each), R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from zlib import crc32

import numpy as np
import numpy.typing as npt

from palate.core.errors import DataError
from palate.core.ragged import IntArray
from palate.core.report import Interval

Values = npt.NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95

_CELLS = 1 << 21
"""Draws held at a time: 16 megabytes, whatever the number of users."""


def per_user(user_rows: IntArray, values: Values) -> tuple[IntArray, Values]:
    """``[B]`` and ``[B, M]`` cases → the users ascending ``[U]`` and the mean over the cases of each ``[U, M]``.

    NaN is "not asked" and left out; a user without any value in a column gets NaN there.
    """
    if len(user_rows) != len(values):
        raise DataError(f"{len(user_rows)} users of cases but {len(values)} values")
    users, place = np.unique(user_rows, return_inverse=True)
    means = np.empty((len(users), values.shape[1]))
    for column, value in enumerate(values.T):
        asked = ~np.isnan(value)
        sums = np.bincount(place[asked], weights=value[asked], minlength=len(users))
        counts = np.bincount(place[asked], minlength=len(users))
        means[:, column] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return users, means


def resampled_means(values: Values, *, resamples: int = RESAMPLES, seed: int = 0) -> Values:
    """``[U, M]`` → ``[R, M]`` the mean over the users of each resample; NaN values take no part.

    All columns share the resamples. Where a column has NaN (a slice that not every user is in), its mean is over the
    drawn users that have a value; NaN where a resample has none of them.
    """
    present = ~np.isnan(values)
    whole = present.all(axis=0)
    patterns, pattern = np.unique(present[:, ~whole], axis=1, return_inverse=True)
    columns = np.hstack([np.nan_to_num(values), patterns.astype(np.float64)])
    sums = np.vstack([counts @ columns for counts in user_counts(len(values), resamples=resamples, seed=seed)])
    sizes = np.full((resamples, values.shape[1]), float(max(len(values), 1)))
    sizes[:, ~whole] = sums[:, values.shape[1] :][:, pattern]
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[:, : values.shape[1]] / sizes


def user_counts(n_users: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[Values]:
    """How often each resample draws each user: consecutive rows ``[r, U]`` of the one resample matrix ``[R, U]``.

    A pure function of its arguments. The matrix is made a few rows at a time and never held whole.
    """
    rng = np.random.default_rng([seed, n_users])
    step = max(1, _CELLS // max(n_users, 1))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, max(n_users, 1), size=(rows, n_users), dtype=np.int64)
        drawn += np.arange(rows)[:, None] * n_users
        yield np.bincount(drawn.ravel(), minlength=rows * n_users).reshape(rows, n_users).astype(np.float64)


def seed_weights(n_seeds: int, *, resamples: int = RESAMPLES, seed: int = 0, run: int = 0) -> Values:
    """``[R, S]`` the weight of each seed of a run in each resample; rows sum to 1. ``run`` separates the systems."""
    if n_seeds == 1:
        return np.ones((resamples, 1))
    rng = np.random.default_rng([seed, n_seeds, run, 0x5EED])
    return rng.multinomial(n_seeds - 1, np.full(n_seeds, 1 / n_seeds), size=resamples) / (n_seeds - 1)


def run_number(name: str) -> int:
    """What separates the seed draws of runs: a number that follows from the name alone."""
    return crc32(name.encode())


def over_seeds(means: Values, weights: Values) -> Values:
    """``[R, S, M]`` resampled means of each seed and ``[R, S]`` weights → ``[R, M]``."""
    return np.einsum("rsm,rs->rm", means, weights)


def intervals(values: Sequence[Values], *, resamples: int = RESAMPLES, seed: int = 0, run: int = 0) -> list[Interval]:
    """One ``[U, M]`` table a seed, rows of all of the same users → M intervals of the mean over users and seeds."""
    stacked = np.stack(values)
    n_seeds, n_users, n_columns = stacked.shape
    flat = stacked.transpose(1, 0, 2).reshape(n_users, n_seeds * n_columns)
    means = resampled_means(flat, resamples=resamples, seed=seed).reshape(resamples, n_seeds, n_columns)
    resampled = over_seeds(means, seed_weights(n_seeds, resamples=resamples, seed=seed, run=run))
    n = (~np.isnan(stacked)).any(axis=0).sum(axis=0)
    points = [_mean(stacked[:, :, column]) for column in range(n_columns)]
    return [interval(points[column], resampled[:, column], int(n[column])) for column in range(n_columns)]


def interval(value: float, resampled: Values, n: int) -> Interval:
    """The percentile interval of ``[R]`` resampled values. Resamples without a value (NaN) are left out."""
    known = resampled[~np.isnan(resampled)]
    if not len(known) or np.isnan(value):
        return Interval(value, float("nan"), float("nan"), n)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high), n)


def _mean(values: Values) -> float:
    """``[S, U]`` → the mean over seeds of the mean over users."""
    asked = ~np.isnan(values)
    if not asked.any(axis=1).all():
        return float("nan")
    return float(np.mean([row[known].mean() for row, known in zip(values, asked, strict=True)]))
