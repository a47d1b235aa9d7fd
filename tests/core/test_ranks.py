"""``ranks`` and ``places`` against counting in plain Python, and against what ``rank`` answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.ragged import Ragged
from palate.core.rankings import rank
from palate.core.ranks import places, ranks

SCORES = st.sampled_from([0.0, -0.0, 1.0, 1.0, 2.0, -1.0, np.nan, np.inf, -np.inf])


def plain(row: np.ndarray, target: int, left: list[int], candidates: list[int] | None) -> tuple[int, int]:
    """First and last place of the target among what may be answered; one without a score is level with the rest."""
    named = set(range(len(row))) if candidates is None else {item for item in candidates if item >= 0}
    allowed = named - set(left)
    score = {item: row[item] if item < len(row) else np.nan for item in allowed}
    own = score.get(target, np.nan)
    if np.isnan(own):
        better = sum(not np.isnan(value) for value in score.values())
        level = sum(np.isnan(value) for value in score.values()) + (target not in score)
    else:
        better = sum(value > own for value in score.values())
        level = sum(value == own for value in score.values())
    return better + 1, better + level


@st.composite
def asked(draw: st.DrawFn) -> tuple[np.ndarray, list[int], list[list[int]], list[list[int]], int]:
    b, n = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    scores = np.array(draw(st.lists(st.lists(SCORES, min_size=n, max_size=n), min_size=b, max_size=b)), np.float32)
    rows = st.lists(st.lists(st.integers(-2, n + 3), max_size=8), min_size=b, max_size=b)
    targets = draw(st.lists(st.integers(-1, n + 1), min_size=b, max_size=b))
    return scores, targets, draw(rows), draw(rows), draw(st.integers(1, 4))


@settings(max_examples=300, deadline=None)
@given(asked())
def test_places_agree_with_the_definition(
    case: tuple[np.ndarray, list[int], list[list[int]], list[list[int]], int],
) -> None:
    scores, targets, left, candidates, size = case
    for with_left in (False, True):
        for with_candidates in (False, True):
            blocks = [scores[start : start + size] for start in range(0, len(scores), size)]
            before = scores.copy()
            found = places(
                blocks,
                np.array(targets),
                leave_out=Ragged.of(left) if with_left else None,
                candidates=Ragged.of(candidates) if with_candidates else None,
            )
            np.testing.assert_array_equal(scores, before)
            for i, row in enumerate(scores):
                first, last = plain(
                    row, targets[i], left[i] if with_left else [], candidates[i] if with_candidates else None
                )
                assert (found.first[i], found.last[i]) == (first, last)
                assert found.expected[i] == (first + last) / 2
                assert found.tied[i] == last - first + 1


@pytest.mark.parametrize("n", [1, 7, 8, 255 * 8, 255 * 8 + 1, 5000, 300_000])
@pytest.mark.parametrize("levels", [1, 3, 10**6])
def test_wide_rows_count_without_overflow(n: int, levels: int) -> None:
    rng = np.random.default_rng(n + levels)
    scores = rng.integers(0, levels, (3, n)).astype(np.float32)
    targets = rng.integers(0, n, 3)
    left = [rng.integers(0, n, 50) for _ in range(3)]
    found = places([scores], targets, leave_out=Ragged.of(left))
    for i in range(3):
        own = scores[i, targets[i]]
        stays = np.setdiff1d(np.arange(n), left[i])
        if targets[i] not in stays:
            assert (found.first[i], found.last[i]) == (len(stays) + 1, len(stays) + 1)
            continue
        assert found.first[i] == 1 + (scores[i, stays] > own).sum()
        assert found.last[i] == (scores[i, stays] >= own).sum()


def test_a_rank_is_the_place_that_rank_answers() -> None:
    """Without ties the target stands in the list exactly where ``ranks`` says."""
    rng = np.random.default_rng(3)
    scores = rng.permuted(np.arange(40 * 900, dtype=np.float32).reshape(40, 900), axis=1)
    left = Ragged.of([rng.integers(0, 900, 20) for _ in range(40)])
    targets = rng.integers(0, 900, 40)
    placed = ranks([scores], targets, leave_out=left)
    lists = rank([scores.copy()], 900, leave_out=left).item_rows
    answered = 0
    for i in range(40):
        at = np.flatnonzero(lists[i] == targets[i])
        if len(at):
            assert placed[i] == at[0] + 1
            answered += 1
    assert answered > 30


def test_level_scores_mean_the_middle() -> None:
    assert ranks([np.zeros((1, 100), np.float32)], np.array([3])).tolist() == [50.5]
    assert ranks([np.full((1, 100), np.nan, np.float32)], np.array([3])).tolist() == [50.5]


def test_rows_must_match() -> None:
    with pytest.raises(ValueError, match="hold 2 rows for 3 targets"):
        ranks([np.zeros((2, 4))], np.zeros(3, dtype=np.int64))
    with pytest.raises(ValueError, match="more rows than the 1 targets"):
        ranks([np.zeros((2, 4))], np.zeros(1, dtype=np.int64))
    assert ranks([], np.zeros(0, dtype=np.int64)).shape == (0,)
