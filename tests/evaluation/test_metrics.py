"""Metrics against hand-computed values, a brute-force reference, ir-measures and an average over tie orders."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.errors import ConfigError, DataError
from palate.core.ragged import Ragged
from palate.core.rankings import Rankings
from palate.evaluation.metrics import KINDS, Metric, metric

ALL = [Metric(kind, k) for kind in KINDS for k in (1, 3, 10)] + [Metric("ndcg", None), Metric("mrr", None)]


def rankings_of(lists: list[list[int]], width: int) -> Rankings:
    rows = np.full((len(lists), width), -1, dtype=np.int64)
    for i, items in enumerate(lists):
        rows[i, : len(items)] = items
    return Rankings(rows, np.where(rows >= 0, -np.arange(width, dtype=np.float32), np.nan).astype(np.float32))


def plain(name: Metric, items: list[int], relevant: set[int]) -> float:
    """The textbook definition, one case, one place at a time."""
    k = name.k or len(items)
    hits = [item in relevant for item in items[:k]]
    if name.kind == "hit":
        return float(any(hits))
    if name.kind == "recall":
        return sum(hits) / len(relevant)
    if name.kind == "precision":
        return sum(hits) / k
    if name.kind == "mrr":
        return next((1 / (i + 1) for i, hit in enumerate(hits) if hit), 0.0)
    if name.kind == "map":
        return sum(sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit) / len(relevant)
    best = len(relevant) if name.k is None else min(name.k, len(relevant))
    ideal = sum(1 / math.log2(i + 2) for i in range(best))
    return sum(1 / math.log2(i + 2) for i, hit in enumerate(hits) if hit) / ideal


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    n = draw(st.integers(1, 5))
    items = st.integers(0, 14)
    lists = [draw(st.lists(items, min_size=1, max_size=12, unique=True)) for _ in range(n)]
    return lists, [draw(st.lists(items, min_size=1, max_size=6)) for _ in range(n)]


@given(answers())
@settings(deadline=None, max_examples=60)
def test_lists_agree_with_the_textbook(case: tuple[list[list[int]], list[list[int]]]) -> None:
    lists, relevant = case
    for name in ALL:
        found = name.of_rankings(rankings_of(lists, 12), Ragged.of(relevant))
        if name.kind == "precision" or name.k is not None:
            expected = [plain(name, items, set(good)) for items, good in zip(lists, relevant, strict=True)]
        else:
            expected = [
                plain(Metric(name.kind, None), items, set(good)) for items, good in zip(lists, relevant, strict=True)
            ]
        np.testing.assert_allclose(found, expected, atol=1e-12, err_msg=name.name)


@given(answers())
@settings(deadline=None, max_examples=15)
def test_lists_agree_with_ir_measures(case: tuple[list[list[int]], list[list[int]]]) -> None:
    ir = pytest.importorskip("ir_measures")
    lists, relevant = case
    theirs = {"recall": ir.R, "hit": ir.Success, "ndcg": ir.nDCG, "mrr": ir.RR, "precision": ir.P, "map": ir.AP}
    run = [ir.ScoredDoc(str(q), str(d), 100.0 - i) for q, items in enumerate(lists) for i, d in enumerate(items)]
    qrels = [ir.Qrel(str(q), str(d), 1) for q, good in enumerate(relevant) for d in set(good)]
    asked = [Metric(kind, k) for kind in KINDS for k in (3, 10)]
    measures = {theirs[name.kind] @ name.k: name for name in asked}
    found = {(m.query_id, measures[m.measure]): m.value for m in ir.iter_calc(list(measures), qrels, run)}
    assert len(found) == len(lists) * len(asked)
    for name in asked:
        ours = name.of_rankings(rankings_of(lists, 12), Ragged.of(relevant))
        for query, value in enumerate(ours):
            assert value == pytest.approx(found[str(query), name], abs=1e-9), name


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(1, 15))
@settings(deadline=None, max_examples=40)
def test_one_target_by_rank_equals_one_target_by_list(places: list[int], k: int) -> None:
    """The same answers seen as ranks and as lists of 30 items."""
    lists = [[1 if place == rank else 100 + place for place in range(1, 31)] for rank in places]
    for kind in KINDS:
        name = Metric(kind, k)
        by_list = name.of_rankings(rankings_of(lists, 30), Ragged.of([[1]] * len(places)))
        np.testing.assert_allclose(name.of_ranks(np.array(places, dtype=float)), by_list, atol=1e-12)


@pytest.mark.parametrize("name", ["recall@3", "ndcg@3", "mrr@4", "mrr", "ndcg", "map@2", "precision@3", "hit@1"])
def test_a_tie_is_worth_the_average_over_every_order(name: str) -> None:
    scores = [5, 3, 3, 3, 1, 1]
    for target, score in enumerate(scores):
        worth = []
        for lot in itertools.permutations(range(6)):
            order = sorted(range(6), key=lambda item: (-scores[item], lot[item]))
            worth.append(metric(name).of_ranks(np.array([order.index(target) + 1.0]))[0])
        better, level = sum(s > score for s in scores), scores.count(score)
        value = metric(name).of_ranks(np.array([better + (level + 1) / 2]), np.array([level]))[0]
        assert value == pytest.approx(np.mean(worth), abs=1e-12)


def test_without_the_group_a_half_rank_is_a_tie_of_two() -> None:
    assert metric("recall@10").of_ranks(np.array([10.0, 10.5, 11.0])).tolist() == [1.0, 0.5, 0.0]
    half = metric("ndcg@10").of_ranks(np.array([1.5]))[0]
    assert half == pytest.approx((1 + 1 / math.log2(3)) / 2)


def test_a_system_that_scores_all_alike_gets_exactly_chance() -> None:
    n = 200
    for name in ("recall@10", "ndcg@10", "mrr@10", "mrr"):
        value = metric(name).of_ranks(np.array([(n + 1) / 2]), np.array([n]))[0]
        assert value == pytest.approx(metric(name).chance(n), rel=1e-12)
    assert metric("recall@10").chance(n) == pytest.approx(10 / n)
    assert metric("recall@10").chance(5) == 1.0


def test_missed_and_not_asked() -> None:
    values = metric("ndcg@10").of_ranks(np.array([1.0, np.inf, np.nan, 2.0]), np.array([1, 1, 1, 1]))
    assert values[0] == 1.0
    assert values[1] == 0.0
    assert math.isnan(values[2])
    assert values[3] == 1 / math.log2(3)
    assert metric("mrr").of_ranks(np.array([np.inf])).tolist() == [0.0]
    assert metric("mrr").of_ranks(np.array([])).shape == (0,)
    nothing = metric("recall@2").of_rankings(rankings_of([[1], [1]], 2), Ragged.of([[], [1]]))
    assert math.isnan(nothing[0])
    assert nothing[1] == 1.0


def test_a_repeated_answer_counts_once_and_an_empty_place_never() -> None:
    value = metric("recall@3").of_rankings(rankings_of([[4, 4, 7]], 5), Ragged.of([[4, 7, 9, 9]]))
    assert value[0] == pytest.approx(2 / 3)
    assert metric("precision@3").of_rankings(rankings_of([[4, 4, 4]], 3), Ragged.of([[4]]))[0] == pytest.approx(1 / 3)


def test_ranks_below_one_are_refused() -> None:
    with pytest.raises(DataError, match="ranks begin at 1"):
        metric("recall@10").of_ranks(np.array([0.0]))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ngcd@10", "did you mean 'ndcg'"),
        ("ndcg@ten", "whole number from 1, such as ndcg@10"),
        ("recall@0", "whole number from 1"),
        ("recall", "always 1; write recall@10"),
        ("precision", "precision@10"),
    ],
)
def test_a_wrong_name_says_the_right_one(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        metric(name)


def test_names_round_trip() -> None:
    for name in ALL:
        if name.k is not None:
            assert metric(name.name) == name
    assert metric(" NDCG@5 ").pretty == "NDCG@5"
    assert metric("recall@10").pretty == "R@10"
