"""``rank`` and ``pick`` against the plain definition; ``Rankings`` as people read them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.ragged import Ragged
from palate.core.rankings import Ranking, Rankings, pick, rank

SCORES = st.sampled_from([0.0, 1.0, 1.0, 2.0, 3.0, -1.0, np.nan, np.inf, -np.inf])


@st.composite
def asked(draw: st.DrawFn) -> tuple[np.ndarray, list[list[int]], list[list[int]], int, int]:
    """Scores, what is left out, candidates (rows may name strangers and repeat), k, rows a block."""
    b, n = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    scores = np.array(draw(st.lists(st.lists(SCORES, min_size=n, max_size=n), min_size=b, max_size=b)), np.float32)
    rows = st.lists(st.lists(st.integers(-2, n + 3), max_size=8), min_size=b, max_size=b)
    return scores, draw(rows), draw(rows), draw(st.integers(0, 12)), draw(st.integers(1, 4))


def blocks_of(scores: np.ndarray, size: int) -> list[np.ndarray]:
    return [scores[start : start + size].copy() for start in range(0, len(scores), size)]


def plain(row: np.ndarray, k: int, left: list[int], candidates: list[int] | None) -> list[int]:
    allowed = set(range(len(row))) - set(left)
    if candidates is not None:
        allowed &= set(candidates)
    return sorted((item for item in allowed if not np.isnan(row[item])), key=lambda item: (-row[item], item))[:k]


@settings(max_examples=200, deadline=None)
@given(asked())
def test_rank_agrees_with_the_definition(case: tuple[np.ndarray, list[list[int]], list[list[int]], int, int]) -> None:
    scores, left, candidates, k, size = case
    for with_left in (False, True):
        for with_candidates in (False, True):
            rankings = rank(
                blocks_of(scores, size),
                k,
                leave_out=Ragged.of(left) if with_left else None,
                candidates=Ragged.of(candidates) if with_candidates else None,
            )
            assert rankings.item_rows.shape == rankings.scores.shape == (len(scores), k)
            for i, row in enumerate(scores):
                expected = plain(row, k, left[i] if with_left else [], candidates[i] if with_candidates else None)
                assert rankings.item_rows[i].tolist() == expected + [-1] * (k - len(expected))
                np.testing.assert_array_equal(
                    rankings.scores[i], np.append(row[expected], [np.nan] * (k - len(expected))).astype(np.float32)
                )


@settings(max_examples=100, deadline=None)
@given(asked())
def test_pick_agrees_with_the_definition(case: tuple[np.ndarray, list[list[int]], list[list[int]], int, int]) -> None:
    scores, _, candidates, _, size = case
    n = scores.shape[1]
    expected = [scores[i, item] if 0 <= item < n else np.nan for i, row in enumerate(candidates) for item in row]
    picked = pick(blocks_of(scores, size), Ragged.of(candidates))
    np.testing.assert_array_equal(picked, np.array(expected, dtype=np.float32))


def test_a_block_that_cannot_be_written_is_copied() -> None:
    """A system without users, such as popularity, may hand out one row for all."""
    shared = np.broadcast_to(np.array([3, 2, 1], dtype=np.float32), (2, 3))
    rankings = rank([shared], 2, leave_out=Ragged.of([[0], [1]]))
    assert rankings.item_rows.tolist() == [[1, 2], [0, 2]]
    assert shared[0].tolist() == [3, 2, 1]


def test_no_blocks() -> None:
    assert rank([], 3).item_rows.shape == (0, 3)
    assert pick([], Ragged.empty(0)).shape == (0,)


def test_named_skips_what_was_not_found() -> None:
    rankings = Rankings(
        np.array([[2, 0], [1, -1]]),
        np.array([[0.5, 0.25], [1.0, np.nan]], dtype=np.float32),
        reasons=(("because", "also"), ("hence", "")),
    )
    assert list(rankings.named(["a", "b", "c"])) == [
        Ranking(("c", "a"), (0.5, 0.25), ("because", "also")),
        Ranking(("b",), (1.0,), ("hence",)),
    ]


def test_joined_keeps_order_and_is_exact_only_where_all_are() -> None:
    first = Rankings(np.array([[1]]), np.array([[2]], dtype=np.float32))
    second = Rankings(np.array([[0], [4]]), np.array([[3], [1]], dtype=np.float32), exact=False)
    both = Rankings.joined([first, second])
    assert both.item_rows.tolist() == [[1], [0], [4]]
    assert both.scores.tolist() == [[2], [3], [1]]
    assert not both.exact
    assert both.reasons is None
    assert Rankings.joined([first, first]).exact
