"""``top_k`` against sorting everything, over ties, NaN, infinities and every way through the code."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from palate.core.rankings import rank
from palate.core.top_k import NOTHING, best_keys, keys_of, scores_of, top_k

NASTY = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3e38, -3e38])


def sorted_whole(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The plain definition, a row at a time."""
    rows = np.full((len(scores), k), -1, dtype=np.int64)
    best = np.full((len(scores), k), np.nan, dtype=np.float32)
    for i, row in enumerate(scores):
        numbers = [column for column in range(len(row)) if not np.isnan(row[column])]
        order = sorted(numbers, key=lambda column: (-row[column], column))[:k]
        rows[i, : len(order)] = order
        best[i, : len(order)] = row[order]
    return rows, best


def assert_same(scores: np.ndarray, k: int) -> None:
    before = scores.copy()
    rows, best = top_k(scores, k)
    expected_rows, expected_best = sorted_whole(scores, k)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(best, expected_best)
    assert rows.dtype == np.int64
    assert best.dtype == np.float32
    np.testing.assert_array_equal(scores, before)


@given(
    scores=arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(0, 40)), elements=NASTY),
    k=st.integers(0, 50),
)
def test_small_rows_of_nasty_numbers(scores: np.ndarray, k: int) -> None:
    assert_same(scores, k)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1024, 6000),
    b=st.integers(1, 4),
    k=st.integers(1, 300),
    levels=st.sampled_from([1, 2, 30, 1000, 10**6]),
    nan_share=st.sampled_from([0.0, 0.3, 0.99, 1.0]),
    infinite_share=st.sampled_from([0.0, 0.01, 0.9]),
)
def test_wide_rows(seed: int, n: int, b: int, k: int, levels: int, nan_share: float, infinite_share: float) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(-levels, levels, (b, n)).astype(np.float32)
    drawn = rng.random((b, n))
    scores[drawn < infinite_share] = rng.choice([np.inf, -np.inf], (b, n))[drawn < infinite_share]
    scores[rng.random((b, n)) < nan_share] = np.nan
    assert_same(scores, k)


@pytest.mark.parametrize("n", [1024, 1025, 4099, 20000])
def test_rows_of_every_kind_in_one_block(n: int) -> None:
    """Crowded rows (all level), rows with too few numbers and plain rows take different ways in one call."""
    rng = np.random.default_rng(n)
    scores = rng.standard_normal((9, n), dtype=np.float32)
    scores[0] = 0
    scores[1] = np.nan
    scores[2, 3:] = np.nan
    scores[3, 5:] = -np.inf
    scores[4] = np.sort(scores[4])
    scores[5] = np.sort(scores[5])[::-1]
    scores[6, ::256] = 7  # one group holds all the best
    scores[7, :50] = 1
    scores[7, 50:] = 0
    for k in (1, 10, 100):
        assert_same(scores, k)


def test_not_contiguous_and_not_float32() -> None:
    scores = np.random.default_rng(0).standard_normal((3000, 4))
    rows, _ = top_k(scores.T, 7)
    np.testing.assert_array_equal(rows, sorted_whole(scores.T.astype(np.float32), 7)[0])
    rows, _ = top_k(np.broadcast_to(np.arange(2000, dtype=np.float32), (3, 2000)), 2)
    np.testing.assert_array_equal(rows, [[1999, 1998]] * 3)


def test_level_rows_stay_small() -> None:
    """A block of equal scores is answered by its first columns, in little memory."""
    scores = np.zeros((256, 20000), dtype=np.float32)
    tracemalloc.start()
    rows, _ = top_k(scores, 50)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(rows, np.tile(np.arange(50), (256, 1)))
    assert peak < scores.nbytes / 2


@given(arrays(np.float32, st.integers(1, 30), elements=st.floats(width=32)))
def test_keys_order_like_scores_and_give_them_back(scores: np.ndarray) -> None:
    keys = keys_of(scores, np.arange(len(scores)))
    np.testing.assert_array_equal(scores_of(keys), scores)
    expected = sorted_whole(scores[None], len(scores))[0][0]
    order = np.argsort(keys, kind="stable")
    order = np.where(np.isnan(scores[order]), -1, order)
    np.testing.assert_array_equal(order, expected)


def test_columns_may_start_elsewhere() -> None:
    keys = best_keys(np.array([[1, 3, 2]], dtype=np.float32), 4, first_column=10)
    np.testing.assert_array_equal(keys[0, :3] & np.uint64(0xFFFFFFFF), [11, 12, 10])
    assert keys[0, 3] == NOTHING


def test_rank_is_top_k_of_blocks() -> None:
    scores = np.random.default_rng(1).integers(0, 40, (30, 2500)).astype(np.float32)
    rankings = rank((scores[i : i + 7].copy() for i in range(0, 30, 7)), 12)
    rows, best = sorted_whole(scores, 12)
    np.testing.assert_array_equal(rankings.item_rows, rows)
    np.testing.assert_array_equal(rankings.scores, best)
