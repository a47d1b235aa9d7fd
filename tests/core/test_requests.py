"""Requests: some of them, what they leave out, and what a smaller model can read of them."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from palate.core.dataset import Dataset
from palate.core.ragged import Ragged
from palate.core.requests import Requests


def made() -> Requests:
    return Requests(
        histories=Ragged.of([[1, 2], [], [3]]),
        history_times=np.array([10, 20, 30]),
        user_rows=np.array([7, -1, 8]),
        times=np.array([100, 200, 300]),
        words=("a", "", "c"),
        candidates=Ragged.of([[1], [2], [3]]),
        leave_out=Ragged.of([[0], [], [5, 6]]),
    )


def test_some_of_the_questions() -> None:
    for some in (made()[1:], made()[np.array([1, 2])]):
        assert len(some) == 2
        assert [row.tolist() for row in some.histories] == [[], [3]]
        assert some.history_times is not None
        assert some.history_times[some.histories.flat_positions()].tolist() == [30]
        assert some.user_rows is not None
        assert some.user_rows.tolist() == [-1, 8]
        assert some.times is not None
        assert some.times.tolist() == [200, 300]
        assert some.words == ("", "c")
        assert some.candidates is not None
        assert [row.tolist() for row in some.candidates] == [[2], [3]]
        assert some.leave_out is not None
        assert [row.tolist() for row in some.leave_out] == [[], [5, 6]]
    bare = Requests.of([[1], [2]])[:1]
    assert (bare.history_times, bare.user_rows, bare.times, bare.words) == (None, None, None, None)
    assert (bare.candidates, bare.leave_out) == (None, None)


def test_leaving_out_history_adds_to_what_is_left_out() -> None:
    left = made().leaving_out_history().leave_out
    assert left is not None
    assert [row.tolist() for row in left] == [[0, 1, 2], [], [5, 6, 3]]
    alone = Requests.of([[4, 4], []]).leaving_out_history().leave_out
    assert alone is not None
    assert [row.tolist() for row in alone] == [[4, 4], []]


@given(st.lists(st.lists(st.integers(-1, 9), max_size=5), min_size=1, max_size=5), st.integers(0, 10), st.booleans())
def test_known_keeps_times_beside_their_items(rows: list[list[int]], n_items: int, timed: bool) -> None:
    histories = Ragged.of(rows)
    # Every item carries itself as its time, so that a shifted pairing shows.
    times = histories.values * 10 if timed else None
    # Rows are shuffled, so that they are views in no particular order.
    order = np.arange(len(rows))[::-1]
    known = Requests(histories[order], history_times=times).known(n_items)
    expected = [[item for item in row if 0 <= item < n_items] for row in rows[::-1]]
    assert [row.tolist() for row in known.histories] == expected
    if timed:
        assert known.history_times is not None
        found = known.history_times[known.histories.flat_positions()]
        assert found.tolist() == [item * 10 for row in expected for item in row]
    else:
        assert known.history_times is None


def test_known_is_the_same_object_where_everything_is() -> None:
    requests = made()
    assert requests.known(4) is requests


def test_for_users_takes_whole_histories() -> None:
    events = pl.DataFrame(
        {"user_row": [0, 0, 2], "item_row": [1, 0, 1], "time": [5, 6, 7]},
        schema_overrides={"user_row": pl.Int32, "item_row": pl.Int32, "time": pl.Int64},
    )
    dataset = Dataset("tiny", events, pl.DataFrame({"item": ["a", "b"]}), pl.DataFrame({"user": ["u", "v", "w"]}))
    requests = Requests.for_users(dataset, np.array([2, -1, 1, 0]))
    assert [row.tolist() for row in requests.histories] == [[1], [], [], [1, 0]]
    assert requests.user_rows is not None
    assert requests.user_rows.tolist() == [2, -1, 1, 0]
    assert requests.history_times is not None
    assert requests.history_times[requests.histories.flat_positions()].tolist() == [7, 5, 6]
