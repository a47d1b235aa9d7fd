"""Predicted ratings against given ones: RMSE, MAE and AUC over all questions, sure to how many users there are.

RMSE and MAE are those of all questions together, as papers print them, not means over users: a resample of users
weighs each user's squared (absolute) errors by how often the user was drawn. AUC is the chance that a liked question
was predicted higher than another, ties one half, over all pairs of questions (Mann & Whitney 1947). A constant gets a
fair RMSE and an AUC of 0.5, so they stand together. Shapes: B questions, U users, M metrics, R resamples, S seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.core.dataset import Dataset
from palate.core.errors import DataError
from palate.core.protocols import RatingPredictor
from palate.core.ragged import IntArray
from palate.core.ratings import RatingCases
from palate.core.report import Interval, Report
from palate.core.split import Split
from palate.evaluation import slices
from palate.evaluation.heading import all_seeds, heading
from palate.evaluation.protocols import Rating
from palate.evaluation.uncertainty import (
    RESAMPLES,
    Values,
    interval,
    over_seeds,
    run_number,
    seed_weights,
    user_counts,
)

_CELLS = 1 << 21
BEYOND = {
    "failures": "share of the answers in which no rating could be read; the user's past average stands in",
    "retries": "share of the questions that were asked a second time",
    "bias": "mean of predicted less given ratings",
    "spread": "standard deviation of the predicted ratings",
    "rmse-matched": "RMSE after the bias was taken out",
}
"""Figures beside the metrics, and what they say."""


def judge_ratings(
    system: RatingPredictor, cases: RatingCases, protocol: Rating, *, train: Dataset, seed: int = 0
) -> pl.DataFrame:
    """One row a question: ``seed``, ``case``, ``user_row``, ``target_row``, ``rating``, ``liked``, ``stars``,
    ``failed``, ``retried`` and a flag a slice. Nothing that a system could not say is left out."""
    asked = protocol.ask(cases)
    found = system.predict(asked.requests)
    if not np.isfinite(found.stars).all():
        raise DataError(f"{type(system).__name__} gave no number for a question; a prediction may not be left out")
    return pl.DataFrame(
        {
            "seed": np.full(len(asked), seed, dtype=np.int32),
            "case": np.arange(len(asked), dtype=np.int32),
            "user_row": asked.requests.user_rows.astype(np.int64),
            "target_row": asked.requests.items.astype(np.int32),
            "rating": asked.ratings,
            "liked": asked.ratings >= protocol.positive,
            "stars": found.stars,
            "failed": found.failed,
            "retried": found.retried,
        }
        | slices.flags_of(asked.requests.items, asked.requests.user_rows, train)
    )


def rating_judge(cases: RatingCases, protocol: Rating | None = None) -> RatingJudgeOf:
    """What a system under training is told about validation: the RMSE below zero, so that higher is better."""
    return RatingJudgeOf((protocol or Rating()).ask(cases))


class RatingJudgeOf:
    """Looks at a system and says its RMSE on these questions, below zero."""

    def __init__(self, cases: RatingCases) -> None:
        self.cases = cases

    def __call__(self, system: RatingPredictor) -> float:
        errors = system.predict(self.cases.requests).stars.astype(np.float64) - self.cases.ratings
        return -float(np.sqrt(np.square(errors).mean()))


def auc(scores: Values, liked: npt.NDArray[np.bool_], weights: Values | None = None) -> float:
    """The area under the curve, ties one half; NaN where everything or nothing was liked."""
    return float(Curve(scores, liked).areas((np.ones(len(scores)) if weights is None else weights)[None])[0])


class Curve:
    """Scores in order, so that areas under many weights of the questions cost no further sorting."""

    def __init__(self, scores: Values, liked: npt.NDArray[np.bool_]) -> None:
        self.order = np.argsort(scores, kind="stable")
        ordered = scores[self.order]
        self.starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(scores) else None
        self.liked = liked[self.order]

    def areas(self, weights: Values) -> Values:
        """``[r]`` areas where question b counts ``weights[r, b]`` times."""
        if self.starts is None:
            return np.full(len(weights), np.nan)
        ordered = weights[:, self.order]
        good = np.add.reduceat(np.where(self.liked, ordered, 0.0), self.starts, axis=1)
        bad = np.add.reduceat(np.where(self.liked, 0.0, ordered), self.starts, axis=1)
        below = np.cumsum(bad, axis=1) - bad / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return (good * below).sum(1) / (good.sum(1) * bad.sum(1))

    def shares(self) -> Values:
        """``[B]`` how far each question lifts the area above its value, summing to 0 (DeLong et al. 1988): a liked
        one by the share of others below it, another by the share of liked ones above it."""
        if self.starts is None:
            return np.zeros(0)
        group = np.zeros(len(self.order), dtype=np.int64)
        group[self.starts[1:]] = 1
        group = np.cumsum(group)
        n_good, n_bad = int(self.liked.sum()), int((~self.liked).sum())
        if not n_good or not n_bad:
            return np.zeros(len(self.order))
        good = np.bincount(group, weights=self.liked)
        bad = np.bincount(group, weights=~self.liked)
        below = (np.cumsum(bad) - bad / 2)[group] / n_bad
        above = (n_good - np.cumsum(good) + good / 2)[group] / n_good
        area = below[self.liked].mean()
        lift = np.where(self.liked, (below - area) / n_good, (above - area) / n_bad)
        found = np.empty(len(lift))
        found[self.order] = lift
        return found


class Seed:
    """The questions of one seed of one run, ready for figures under any weights of the users."""

    def __init__(self, cases: pl.DataFrame) -> None:
        self.users, self.place = np.unique(cases["user_row"].to_numpy(), return_inverse=True)
        errors = cases["stars"].to_numpy().astype(np.float64) - cases["rating"].to_numpy()
        n = len(self.users)
        self.counts = np.bincount(self.place, minlength=n).astype(np.float64)
        self.squares = np.bincount(self.place, weights=np.square(errors), minlength=n)
        self.absolutes = np.bincount(self.place, weights=np.abs(errors), minlength=n)
        self.curve = Curve(cases["stars"].to_numpy().astype(np.float64), cases["liked"].to_numpy())

    def figures(self, weights: Values, metrics: Sequence[str]) -> Values:
        """``[r, M]`` where user u counts ``weights[r, u]`` times."""
        n = weights @ self.counts
        found = []
        for name in metrics:
            if name == "auc":
                step = max(1, _CELLS // max(len(self.place), 1))
                pieces = [weights[i : i + step][:, self.place] for i in range(0, len(weights), step)]
                found.append(np.concatenate([self.curve.areas(piece) for piece in pieces]))
            else:
                with np.errstate(invalid="ignore", divide="ignore"):
                    mean = (weights @ (self.squares if name == "rmse" else self.absolutes)) / n
                found.append(np.sqrt(mean) if name == "rmse" else mean)
        return np.stack(found, axis=1)

    def parts(self, metrics: Sequence[str]) -> Values:
        """``[U, M]`` what each user adds to a figure: sums of errors, lifts of the area. Two runs whose users are
        exchanged differ in a figure as these sums do, so permutations flip them."""
        columns = {"rmse": self.squares, "mae": self.absolutes}
        if "auc" in metrics:
            columns["auc"] = np.bincount(self.place, weights=self.curve.shares(), minlength=len(self.users))
        # An area is its mean lift plus what is the same for all users.
        area = self.figures(np.ones((1, len(self.users))), ["auc"])[0, 0] if "auc" in metrics else 0.0
        return np.stack([columns[m] + (area / len(self.users) if m == "auc" else 0.0) for m in metrics], axis=1)


def seeds_of(cases: pl.DataFrame) -> list[Seed]:
    return [Seed(table) for _, table in sorted(cases.group_by("seed"), key=lambda group: group[0])]


def resampled_figures(
    seeds: Sequence[Seed], metrics: Sequence[str], *, resamples: int, run: int, seed: int = 0
) -> tuple[Values, Values]:
    """``[M]`` figures, the mean over seeds, and ``[R, M]`` those of each resample of users and seeds."""
    n = len(seeds[0].users)
    points = np.mean([one.figures(np.ones((1, n)), metrics)[0] for one in seeds], axis=0)
    blocks = [
        np.stack([one.figures(counts, metrics) for one in seeds], axis=1)
        for counts in user_counts(n, resamples=resamples, seed=seed)
    ]
    weights = seed_weights(len(seeds), resamples=resamples, seed=seed, run=run)
    return points, over_seeds(np.concatenate(blocks), weights)


def make_rating_report(
    cases: pl.DataFrame | Iterable[pl.DataFrame],
    split: Split,
    protocol: Rating,
    *,
    name: str,
    system: str,
    pretrained: str = "no",
    cost: Mapping[str, float] | None = None,
    marks: Sequence[str] = (),
    notes: Sequence[str] = (),
    resamples: int = RESAMPLES,
) -> Report:
    """The figures of one run from ``judge_ratings``: one table, or one a seed."""
    together = all_seeds(cases, name, "answered no question: the split asks about no event with a rating")
    run = run_number(name)
    parts = {part: together.filter(pl.col(part)) for part in slices.NAMES if together[part].any()}
    return Report(
        **heading(together, split, protocol, marks),
        name=name,
        system=system,
        pretrained=pretrained,
        metrics=_spans(together, protocol.metrics, resamples, run),
        slices={part: _spans(table, protocol.metrics, resamples, run) for part, table in parts.items()},
        slice_rules={part: rule.partition(";")[0] for part, rule in slices.rules(split.train).items() if part in parts},
        beyond=_beyond(together),
        cost=dict(cost or {}),
        notes=tuple(notes),
    )


def _spans(cases: pl.DataFrame, metrics: Sequence[str], resamples: int, run: int) -> dict[str, Interval]:
    seeds = seeds_of(cases)
    points, resampled = resampled_figures(seeds, metrics, resamples=resamples, run=run)
    n = len(seeds[0].users)
    return {m: interval(float(points[i]), resampled[:, i], n) for i, m in enumerate(metrics)}


def _beyond(cases: pl.DataFrame) -> dict[str, Interval]:
    nan = float("nan")
    errors = (cases["stars"] - cases["rating"]).to_numpy().astype(np.float64)
    figures = {
        "failures": float(cases["failed"].to_numpy().mean()),
        "retries": float(cases["retried"].to_numpy().mean()),
        "bias": float(errors.mean()),
        "spread": float(cases["stars"].to_numpy().std()),
        "rmse-matched": float(errors.std()),
    }
    users: IntArray = cases["user_row"].unique().to_numpy()
    return {key: Interval(value, nan, nan, len(users)) for key, value in figures.items()}
