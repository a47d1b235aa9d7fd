"""Which of these runs is better, and what is not shown: paired, corrected for the number of questions asked.

For each pair and metric: the difference a - b of the means over users, its 95 % interval from the resamples that all
runs share, and a two-sided sign-flip permutation p on the differences of each user (averaged over cases and seeds).
``p_holm`` corrects the p of one metric over all pairs (Holm 1979). ``effect`` is Cohen's d_z: the mean difference over
the standard deviation of the users' differences. "Better" needs both: an interval without 0 and ``p_holm`` < 0.05. The
p speaks of these trained runs on other users; the interval speaks also of other seeds where a run has several.

Shapes: R runs, U users, M metrics, S seeds, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.core.errors import ComparisonError, nearest
from palate.core.ragged import IntArray
from palate.core.report import Report
from palate.evaluation.metrics import OF_RATINGS, shown
from palate.evaluation.protocols import MAIN
from palate.evaluation.ratings import resampled_figures, seeds_of
from palate.evaluation.uncertainty import (
    RESAMPLES,
    interval,
    over_seeds,
    per_user,
    resampled_means,
    run_number,
    seed_weights,
)
from palate.evaluation.wording import sentence

Values = npt.NDArray[np.float64]

ALPHA = 0.05
FLIPS = 10_000
_CELLS = 1 << 21


@dataclass(frozen=True)
class Comparison:
    """``a`` against ``b`` on one metric; ``difference`` = a - b."""

    a: str
    b: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    effect: float

    @property
    def winner(self) -> str | None:
        """The run that is better, or None where neither is shown to be."""
        if self.p_holm >= ALPHA or not (self.low > 0 or self.high < 0):
            return None
        return self.a if shown(self.metric).good(self.difference) > 0 else self.b

    def reversed(self) -> Comparison:
        """The same finding told from the other side."""
        return Comparison(
            self.b, self.a, self.metric, -self.difference, -self.high, -self.low, self.p, self.p_holm, -self.effect
        )


@dataclass(frozen=True)
class Comparisons:
    """Every pair of some runs on every metric; ``values`` holds the mean of each run, ``metric → run → value``."""

    pairs: tuple[Comparison, ...]
    values: dict[str, dict[str, float]]

    def between(self, a: str, b: str, metric: str = MAIN) -> Comparison:
        """``a`` against ``b``, whichever way round it was computed."""
        for pair in self.pairs:
            if pair.metric == metric and {pair.a, pair.b} == {a, b}:
                return pair if pair.a == a else pair.reversed()
        known = {name for pair in self.pairs for name in (pair.a, pair.b)}
        raise ComparisonError(f"'{a}' and '{b}' were not compared on {metric}{nearest(a, known)}")

    def order(self, metric: str = MAIN) -> list[str]:
        """The runs, best value first."""
        if metric not in self.values:
            raise ComparisonError(f"these runs were not compared on '{metric}'{nearest(metric, self.values)}")
        values = self.values[metric]
        return sorted(values, key=lambda name: -shown(metric).good(values[name]))

    def tiers(self, metric: str = MAIN) -> list[list[str]]:
        """Groups, best first: the highest run that is left and all that are not shown worse than it.

        The first of a tier is shown to be better than every run of every later tier. Nothing is said between the
        other runs of a tier.
        """
        left = self.order(metric)
        tiers = []
        while left:
            head = left[0]
            beaten = [name for name in left[1:] if self.between(head, name, metric).winner == head]
            tiers.append([name for name in left if name not in beaten])
            left = beaten
        return tiers

    def best(self, metric: str = MAIN) -> list[str]:
        """The highest run and all that are not shown worse than it."""
        return self.tiers(metric)[0]

    def sentence(self, metric: str = MAIN) -> str:
        """What is and what is not shown to differ, in at most five lines of plain English."""
        return sentence(self.tiers(metric), self.values[metric], lambda a, b: self.between(a, b, metric), metric)


def compare(
    reports: Sequence[Report],
    metrics: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    flips: int = FLIPS,
    seed: int = 0,
) -> Comparisons:
    """Every pair of runs on ``metrics`` (those that all reports have when None).

    Raises ``ComparisonError`` when the runs were not judged by the same questions: another split, another protocol,
    other cases. ``flips`` is raised where so many pairs are compared that fewer could not show anything.
    """
    names = _checked(reports)
    if metrics is None:
        metrics = [name for name in reports[0].metrics if all(name in report.metrics for report in reports)]
    for name in metrics:
        for report in reports:
            if name not in report.metrics and name not in report.cases.columns:
                raise ComparisonError(f"run '{report.name}' was not judged on {name}{nearest(name, report.metrics)}")
    of_ratings = all(name in OF_RATINGS for name in metrics)
    points, means, resampled = (_of_ratings if of_ratings else _of_cases)(reports, metrics, resamples, seed)
    pairs = list(combinations(range(len(reports)), 2))
    p = sign_flip_p(means, pairs, flips=max(flips, 100 * len(pairs)), seed=seed)  # [P, M]
    found = []
    for column, name in enumerate(metrics):
        corrected = holm(p[:, column])
        for row, (a, b) in enumerate(pairs):
            gap = means[a, :, column] - means[b, :, column]
            gap = gap[~np.isnan(gap)]  # of a part of the questions, users who were asked none of it say nothing
            difference = float(points[a, column] - points[b, column])
            span = interval(difference, resampled[a, :, column] - resampled[b, :, column], len(gap))
            found.append(
                Comparison(
                    names[a],
                    names[b],
                    name,
                    span.value,
                    span.low,
                    span.high,
                    float(p[row, column]),
                    float(corrected[row]),
                    effect_size(gap),
                )
            )
    values = {
        name: {run: float(points[row, column]) for row, run in enumerate(names)} for column, name in enumerate(metrics)
    }
    return Comparisons(tuple(found), values)


def holm(p: Values) -> Values:
    """``[P]`` p-values corrected for being the smallest of so many (Holm 1979, step-down)."""
    order = np.argsort(p, kind="stable")
    steps = (len(p) - np.arange(len(p))) * p[order]
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def sign_flip_p(means: Values, pairs: Sequence[tuple[int, int]], *, flips: int = FLIPS, seed: int = 0) -> Values:
    """``[P, M]`` two-sided permutation p of each pair from ``[R, U, M]`` values, exact up to the number of flips.

    Under "no difference" a user's two values could stand the other way round. All pairs share the signs; a flipped sum
    of differences is the difference of two flipped sums, so the runs are flipped, not the pairs: R columns, not P.
    """
    n_runs, n_users, n_metrics = means.shape
    a, b = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    # The middle is taken out first: rounding then happens at the size of the differences.
    columns = np.nan_to_num(means - means.mean(axis=0)).transpose(1, 0, 2).reshape(n_users, n_runs * n_metrics)
    total = columns.sum(axis=0).reshape(n_runs, n_metrics)
    observed = np.abs(total[a] - total[b])
    reached = np.zeros(observed.shape, dtype=np.int64)
    rng = np.random.default_rng([seed, n_users, 0xF11B])
    step = max(1, _CELLS // max(n_users, 1))
    for start in range(0, flips, step):
        rows = min(step, flips - start)
        bits = np.unpackbits(rng.integers(0, 256, size=(rows, (n_users + 7) // 8), dtype=np.uint8), axis=1)
        kept = (bits[:, :n_users].astype(np.float64) @ columns).reshape(rows, n_runs, n_metrics)
        flipped = np.abs(2 * (kept[:, a] - kept[:, b]) - (total[a] - total[b]))
        reached += (flipped >= observed - 1e-9).sum(axis=0)
    return (1 + reached) / (flips + 1)


def effect_size(differences: Values) -> float:
    """Cohen's d_z of paired differences ``[U]``; 0 where there is none, NaN where it is without spread or U < 2."""
    if not differences.any():
        return 0.0
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    return float(differences.mean()) / spread if spread > 0 else float("nan")


def _checked(reports: Sequence[Report]) -> list[str]:
    if len(reports) < 2:
        raise ComparisonError("a comparison needs at least two runs")
    names = [report.name for report in reports]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ComparisonError(f"two runs are named '{sorted(twice)[0]}'; give each its own name")
    first = reports[0]
    for other in reports[1:]:
        if other.split_hash != first.split_hash:
            raise ComparisonError(
                f"'{first.name}' and '{other.name}' were judged on different splits "
                f"({first.data}, {first.split} {first.split_hash[:8]} and {other.data}, {other.split} "
                f"{other.split_hash[:8]}): evaluate both on one split"
            )
        if (other.protocol, other.part) != (first.protocol, first.part):
            raise ComparisonError(
                f"'{first.name}' and '{other.name}' were asked differently ({_how(first)} / {_how(other)}): "
                "evaluate both under one protocol"
            )
        if not _questions(first).equals(_questions(other)):
            raise ComparisonError(
                f"'{first.name}' and '{other.name}' do not answer the same cases: evaluate both again on one split"
            )
    return names


def _how(report: Report) -> str:
    return f"{report.protocol}, {report.part}" if report.part else report.protocol


def _questions(report: Report) -> pl.DataFrame:
    columns = [name for name in ("case", "user_row", "target_row", "words") if name in report.cases.columns]
    return report.cases.select(columns).unique().sort(columns)


def _tables(report: Report, metrics: Sequence[str]) -> Values:
    """``[S, U, M]`` the value of each user for each seed, users ascending."""
    tables = []
    for _, cases in sorted(report.cases.group_by("seed"), key=lambda group: group[0]):
        users: IntArray = cases["user_row"].to_numpy()
        tables.append(per_user(users, cases.select(metrics).to_numpy())[1])
    if len({table.shape for table in tables}) > 1:
        raise ComparisonError(f"the seeds of run '{report.name}' did not answer the same cases")
    return np.stack(tables)


def _of_cases(
    reports: Sequence[Report], metrics: Sequence[str], resamples: int, seed: int
) -> tuple[Values, Values, Values]:
    """Figures that are means over users: themselves ``[R, M]``, the values of each user ``[R, U, M]``, resampled
    figures ``[R, resamples, M]``."""
    tables = [_tables(report, metrics) for report in reports]
    means = np.stack([table.mean(axis=0) for table in tables])
    return np.nanmean(means, axis=1), means, _resampled(tables, [report.name for report in reports], resamples, seed)


def _of_ratings(
    reports: Sequence[Report], metrics: Sequence[str], resamples: int, seed: int
) -> tuple[Values, Values, Values]:
    """The same of figures of predicted ratings, which are no means over users: what each user adds to them stands in
    the place of values."""
    points, parts, resampled = [], [], []
    for report in reports:
        seeds = seeds_of(report.cases)
        found = resampled_figures(seeds, metrics, resamples=resamples, run=run_number(report.name), seed=seed)
        points.append(found[0])
        resampled.append(found[1])
        parts.append(np.mean([one.parts(metrics) for one in seeds], axis=0))
    return np.stack(points), np.stack(parts), np.stack(resampled)


def _resampled(tables: Sequence[Values], names: Sequence[str], resamples: int, seed: int) -> Values:
    """``[R, resamples, M]`` resampled means of each run; every run and metric in one pass over the resamples."""
    n_metrics = tables[0].shape[2]
    flat = np.concatenate([table.transpose(1, 0, 2).reshape(table.shape[1], -1) for table in tables], axis=1)
    means = resampled_means(flat, resamples=resamples, seed=seed)
    ends = np.cumsum([len(table) * n_metrics for table in tables])
    runs = []
    for name, table, part in zip(names, tables, np.split(means, ends[:-1], axis=1), strict=True):
        weights = seed_weights(len(table), resamples=resamples, seed=seed, run=run_number(name))
        runs.append(over_seeds(part.reshape(resamples, len(table), n_metrics), weights))
    return np.stack(runs)
