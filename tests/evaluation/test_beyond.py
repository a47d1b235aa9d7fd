"""Figures beyond accuracy against plain loops and hand-computed values."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from conftest import N_ITEMS, Scorer, dataset_of

from palate.core.errors import DataError
from palate.core.ragged import Ragged
from palate.core.split import Split
from palate.evaluation import beyond as b
from palate.evaluation.judging import judge_cases
from palate.evaluation.protocols import FullRanking

rng = np.random.default_rng(0)
LISTS = np.array([rng.choice(12, 5, replace=False) for _ in range(30)])
LISTS[0, 3:] = -1
LISTS[1] = -1
LISTS[2, 1:] = -1
COUNTS = rng.integers(0, 50, 12)
VECTORS = rng.normal(size=(12, 4))
VECTORS[7] = 0
CATEGORIES = [["a"], ["a", "b"], ["c"], [], ["b"], ["b", "c"], ["a"], ["d"], ["d", "a"], ["c"], ["b"], ["a"]]
HISTORIES = Ragged.of([rng.choice(12, rng.integers(0, 9)) for _ in range(30)])


def shown(row: np.ndarray) -> list[int]:
    return [int(item) for item in row if item >= 0]


def test_coverage_and_gini() -> None:
    assert b.coverage(np.array([[0, 1], [1, -1]]), 4) == 0.5
    assert b.gini(np.array([[0, 1], [2, 3]]), 4) == pytest.approx(0)
    assert b.gini(np.array([[0], [0], [0]]), 4) == pytest.approx(0.75)
    counts = b.exposure(LISTS, 12)
    plain = np.abs(counts[:, None] - counts[None, :]).sum() / (2 * 12 * counts.sum())
    assert b.gini(LISTS, 12) == pytest.approx(plain)
    assert math.isnan(b.gini(np.full((2, 3), -1), 4))


def test_novelty() -> None:
    total = COUNTS.sum() + 12
    for row, value in zip(LISTS, b.novelty(LISTS, COUNTS), strict=True):
        expected = [-math.log2((COUNTS[item] + 1) / total) for item in shown(row)]
        assert value == pytest.approx(np.mean(expected)) if expected else math.isnan(value)
    assert b.novelty(np.array([[0]]), np.array([3, 1, 0, 0]))[0] == 1.0  # 4 of 8


def test_diversity() -> None:
    for row, value in zip(LISTS, b.diversity(LISTS, VECTORS), strict=True):
        items = [item for item in shown(row) if VECTORS[item].any()]
        gaps = [
            1 - VECTORS[i] @ VECTORS[j] / np.linalg.norm(VECTORS[i]) / np.linalg.norm(VECTORS[j])
            for i, j in combinations(items, 2)
        ]
        assert value == pytest.approx(np.mean(gaps)) if gaps else math.isnan(value)


def test_diversity_of_categories_is_that_of_their_vectors() -> None:
    table = b.category_table(pl.DataFrame({"item": range(12), "category": CATEGORIES}))
    np.testing.assert_allclose(b.diversity(LISTS, table), b.diversity(LISTS, table.toarray()), equal_nan=True)


def test_calibration() -> None:
    table = b.category_table(pl.DataFrame({"item": range(12), "category": CATEGORIES}))
    for row, history, value in zip(LISTS, HISTORIES, b.calibration(LISTS, HISTORIES, table), strict=True):
        p, q = mix(history.tolist()), mix(shown(row))
        if not p or not q:
            assert math.isnan(value)
            continue
        expected = sum(share * math.log(share / (0.99 * q.get(name, 0) + 0.01 * share)) for name, share in p.items())
        assert value == pytest.approx(expected)


def mix(items: list[int]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for item in items:
        for name in CATEGORIES[item]:
            shares[name] = shares.get(name, 0) + 1 / len(CATEGORIES[item])
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def test_the_same_mix_is_perfectly_calibrated() -> None:
    table = b.category_table(pl.DataFrame({"item": range(3), "category": [["a"], ["b"], ["a"]]}))
    same = b.calibration(np.array([[2, 1]]), Ragged.of([[0, 1]]), table)
    other = b.calibration(np.array([[0, 2]]), Ragged.of([[1, 1]]), table)
    assert same[0] == pytest.approx(0, abs=1e-12)
    assert other[0] == pytest.approx(math.log(100))


def test_popularity_of_profiles() -> None:
    for history, value in zip(HISTORIES, b.profile_popularity(HISTORIES, COUNTS), strict=True):
        assert value == pytest.approx(COUNTS[history].mean()) if len(history) else math.isnan(value)


def test_categories_must_be_lists() -> None:
    assert b.category_table(pl.DataFrame({"item": ["a"]})) is None
    assert (
        b.category_table(
            pl.DataFrame({"item": ["a"], "category": [None]}, schema_overrides={"category": pl.List(pl.String)})
        )
        is None
    )
    with pytest.raises(DataError, match="list of texts"):
        b.category_table(pl.DataFrame({"item": ["a"], "category": ["x"]}))


def test_a_popularity_ranking_lifts_popularity(split: Split) -> None:
    counts = split.train.item_counts
    by_count = np.tile(counts.astype(np.float32), (split.dataset.n_users, 1))
    protocol = FullRanking(k=5)
    popular = b.beyond(judge_cases(Scorer(by_count), split.test, protocol, train=split.train), split.train)
    rare = b.beyond(judge_cases(Scorer(-by_count), split.test, protocol, train=split.train), split.train)
    assert list(popular) == [name + "@5" for name in b.MEANING]
    assert popular["popularity-lift@5"].low > rare["popularity-lift@5"].high
    assert popular["novelty@5"].high < rare["novelty@5"].low
    assert rare["popularity-lift@5"].high < 0
    for name in ("novelty@5", "diversity@5", "calibration@5", "popularity-lift@5"):
        assert popular[name].low < popular[name].value < popular[name].high, name
    assert math.isnan(popular["coverage@5"].low)
    assert 0 < popular["coverage@5"].value < 1


def test_the_lift_is_the_ratio_of_the_means(split: Split) -> None:
    scores = np.random.default_rng(1).random((split.dataset.n_users, N_ITEMS))
    cases = judge_cases(Scorer(scores), split.test, FullRanking(k=4), train=split.train)
    counts = split.train.item_counts
    met = [
        counts[split.train.histories.row(user)].mean()
        for user in cases["user_row"]
        if len(split.train.histories.row(user))
    ]
    lists = [
        counts[row].mean()
        for user, row in zip(cases["user_row"], cases["answers"].to_numpy(), strict=True)
        if len(split.train.histories.row(user))
    ]
    assert b.beyond(cases, split.train)["popularity-lift@4"].value == pytest.approx(np.mean(lists) / np.mean(met) - 1)


def test_users_without_a_train_history_have_no_lift() -> None:
    train = dataset_of([[0, 0, 1], []], 3)
    lists = pl.Series("answers", [[1], [2], [2]], dtype=pl.Array(pl.Int32, 1))
    found = b.beyond(pl.DataFrame({"seed": [0] * 3, "user_row": [0, 1, -5]}).with_columns(lists), train)
    lift = found["popularity-lift@1"]
    assert (lift.value, lift.n) == (pytest.approx(1 / (5 / 3) - 1), 1)
    assert lift.low == pytest.approx(lift.value)  # one user has a history, so every resample that draws it is alike
    assert lift.high == pytest.approx(lift.value)
    assert found["novelty@1"].n == 3


def test_without_lists_or_categories_there_is_less_to_say(split: Split) -> None:
    plain = dataset_of([[0, 1], [1, 2]], 4)
    cases = pl.DataFrame(
        {"seed": [0, 0], "user_row": [0, 1], "answers": [[2, 3], [0, 3]]},
        schema_overrides={"answers": pl.Array(pl.Int32, 2)},
    )
    assert set(b.beyond(cases, plain)) == {"coverage@2", "gini@2", "novelty@2", "popularity-lift@2"}
    assert b.beyond(cases.drop("answers"), plain) == {}
    with_vectors = b.beyond(cases, plain, vectors=np.eye(4))
    assert with_vectors["diversity@2"].value == pytest.approx(1)
