"""Figures of predicted ratings against brute force and other libraries; comparison knows that less error is better."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from palate.core.errors import DataError
from palate.core.ratings import Predictions, RatingCases, RatingRequests
from palate.core.split import Split
from palate.data.ratings import rating_cases
from palate.data.split import leave_one_out, split
from palate.data.world import world
from palate.evaluation.comparison import compare
from palate.evaluation.protocols import Rating
from palate.evaluation.ratings import Curve, Seed, auc, judge_ratings, make_rating_report
from palate.evaluation.reports import read_report, to_json, write_report
from palate.evaluation.tables import leaderboard
from palate.evaluation.uncertainty import user_counts


@pytest.fixture(scope="module")
def made() -> Split:
    return split(world("test").dataset, "temporal")


class Noisy:
    """The truth with noise; ``wrong`` is its spread."""

    def __init__(self, cases: RatingCases, wrong: float, bias: float = 0.0, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.stars = cases.ratings + bias + rng.normal(0, wrong, len(cases)).astype(np.float32)

    def predict(self, requests: RatingRequests) -> Predictions:
        return replace(Predictions.of(self.stars[: len(requests)]), failed=self.stars[: len(requests)] > 5)


def by_pairs(scores: np.ndarray, liked: np.ndarray) -> float:
    good, bad = scores[liked], scores[~liked]
    return float(((good[:, None] > bad) + 0.5 * (good[:, None] == bad)).mean())


def test_the_area_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, liked = rng.integers(0, 8, 40).astype(float), rng.random(40) < 0.4
        assert auc(scores, liked) == pytest.approx(by_pairs(scores, liked))
        counts = rng.integers(0, 4, 40)
        again = np.repeat(np.arange(40), counts)
        if liked[again].any() and not liked[again].all():
            assert auc(scores, liked, counts.astype(float)) == pytest.approx(by_pairs(scores[again], liked[again]))
        metrics = pytest.importorskip("sklearn.metrics")
        assert auc(scores, liked) == pytest.approx(metrics.roc_auc_score(liked, scores))
    liked = np.array([True, False, True])
    assert auc(np.full(3, 3.3), liked) == 0.5
    assert auc(liked.astype(float), liked) == 1.0
    assert np.isnan(auc(np.arange(3.0), np.ones(3, dtype=bool)))


def test_lifts_of_the_area_are_the_leave_one_out_effects() -> None:
    """Leaving a question out moves the area as its lift says, to first order; lifts sum to nothing."""
    rng = np.random.default_rng(1)
    scores, liked = rng.integers(0, 30, 300).astype(float), rng.random(300) < 0.5
    lifts = Curve(scores, liked).shares()
    assert lifts.sum() == pytest.approx(0, abs=1e-9)
    whole = auc(scores, liked)
    for row in range(0, 300, 29):
        kept = np.arange(300) != row
        assert whole - auc(scores[kept], liked[kept]) == pytest.approx(lifts[row], abs=2e-4)


def test_figures_and_resamples_equal_brute_force(made: Split) -> None:
    cases = rating_cases(made)
    table = judge_ratings(Noisy(cases, 0.7), cases, Rating(), train=made.train)  # type: ignore[arg-type]
    seed = Seed(table)
    users, given = table["user_row"].to_numpy(), table["rating"].to_numpy()
    errors = (table["stars"] - table["rating"]).to_numpy().astype(np.float64)
    for row in next(user_counts(len(seed.users), resamples=3)):
        again = np.concatenate(
            [np.repeat(np.flatnonzero(users == u), int(n)) for u, n in zip(seed.users, row, strict=True)]
        )
        found = seed.figures(row[None], ["rmse", "mae", "auc"])[0]
        assert found[0] == pytest.approx(np.sqrt(np.square(errors[again]).mean()))
        assert found[1] == pytest.approx(np.abs(errors[again]).mean())
        assert found[2] == pytest.approx(by_pairs(table["stars"].to_numpy()[again].astype(float), given[again] >= 4))


def report(made: Split, name: str, wrong: float, **more: float) -> object:
    cases = rating_cases(made)
    tables = [
        judge_ratings(Noisy(cases, wrong, seed=s, **more), cases, Rating(), train=made.train, seed=s)  # type: ignore[arg-type]
        for s in (0, 1)
    ]
    return make_rating_report(
        tables, made, Rating(), name=name, system="rating-mf", notes=["asked ratings 1234"], resamples=400
    )


def test_less_error_wins_and_is_told_so(made: Split, tmp_path: Path) -> None:
    good, bad = report(made, "good", 0.3), report(made, "bad", 1.2)
    found = compare([bad, good], resamples=400, flips=500)  # type: ignore[list-item]
    assert found.best("rmse") == found.best("mae") == found.best("auc") == ["good"]
    pair = found.between("good", "bad", "rmse")
    assert pair.difference < 0
    assert pair.high < 0
    assert pair.p_holm < 0.01
    assert found.between("good", "bad", "auc").difference > 0
    assert found.sentence("rmse").startswith("good is better than bad on RMSE (−0.")
    write_report(good, tmp_path)  # type: ignore[arg-type]
    again = read_report(tmp_path)
    assert list(again.metrics) == ["rmse", "mae", "auc"]
    assert again.notes == ("asked ratings 1234",)
    assert to_json([again])["runs"][0]["metrics"]["rmse"]["value"] == pytest.approx(0.3, abs=0.1)
    from rich.console import Console

    console = Console(record=True, width=120, file=sys.stderr)
    console.print(leaderboard([good, bad], found))  # type: ignore[list-item]
    said = console.export_text()
    assert said.index("good") < said.index("bad ")
    assert "lowest RMSE" in said
    assert "asked ratings 1234" in said


def test_two_runs_alike_are_not_told_apart(made: Split) -> None:
    found = compare([report(made, "a", 0.8), report(made, "b", 0.8)], resamples=400, flips=500)  # type: ignore[list-item]
    for metric in ("rmse", "mae", "auc"):
        pair = found.between("a", "b", metric)
        assert pair.difference == pytest.approx(0, abs=1e-12)
        assert pair.winner is None


def test_bias_spread_and_failures_stand_beside_the_figures(made: Split) -> None:
    found = report(made, "late", 0.0, bias=0.5)
    beyond = found.beyond  # type: ignore[attr-defined]
    assert beyond["bias"].value == pytest.approx(0.5, abs=1e-5)
    assert beyond["rmse-matched"].value == pytest.approx(0, abs=1e-5)
    assert found.metrics["rmse"].value == pytest.approx(0.5, abs=1e-5)  # type: ignore[attr-defined]
    cases = rating_cases(made)
    assert beyond["failures"].value == pytest.approx((cases.ratings + 0.5 > 5).mean())


def test_a_sample_is_the_same_for_everybody(made: Split) -> None:
    cases = rating_cases(made)
    some = Rating(sample=20).ask(cases)
    assert len(some) == 20
    np.testing.assert_array_equal(some.events, Rating(sample=20).ask(cases).events)
    assert not np.array_equal(some.events, Rating(sample=20, seed=1).ask(cases).events)
    assert Rating(sample=10**6).ask(cases) is cases
    assert "20 rated questions (seed 0)" in str(Rating(sample=20))


def test_a_prediction_may_not_be_left_out(made: Split) -> None:
    cases = rating_cases(made)
    system = Noisy(cases, 0.1)
    system.stars[3] = np.nan
    with pytest.raises(DataError, match="a prediction may not be left out"):
        judge_ratings(system, cases, Rating(), train=made.train)  # type: ignore[arg-type]


def test_a_log_without_ratings_says_so() -> None:
    whole = world("test").dataset
    silent = replace(whole, interactions=whole.interactions.with_columns(pl.lit(None).alias("rating")))
    with pytest.raises(DataError, match=r"no event of .* has a rating"):
        rating_cases(leave_one_out(silent))
