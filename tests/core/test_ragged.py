"""``Ragged`` against lists of lists."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from palate.core.ragged import Ragged

ROWS = st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=7)


def lists(ragged: Ragged) -> list[list[int]]:
    return [row.tolist() for row in ragged]


@st.composite
def overlapping(draw: st.DrawFn) -> tuple[Ragged, list[list[int]]]:
    """Rows that share, skip and repeat values, as prefixes of a log do."""
    values = draw(st.lists(st.integers(-3, 9), max_size=12))
    ends = st.tuples(st.integers(0, len(values)), st.integers(0, len(values))).map(sorted)
    spans = draw(st.lists(ends, max_size=6))
    starts, stops = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    return Ragged(np.array(values, dtype=np.int32), starts, stops), [values[a:b] for a, b in spans]


@given(ROWS)
def test_of_lists(rows: list[list[int]]) -> None:
    ragged = Ragged.of(rows)
    assert lists(ragged) == rows
    assert len(ragged) == len(rows)
    assert [ragged.row(i).tolist() for i in range(len(rows))] == rows
    assert ragged.offsets().tolist() == [0, *np.cumsum([len(row) for row in rows]).tolist()]


@given(overlapping())
def test_views_of_any_kind(both: tuple[Ragged, list[list[int]]]) -> None:
    ragged, rows = both
    assert lists(ragged) == rows
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    assert ragged.flat().tolist() == [value for row in rows for value in row]
    assert ragged.values[ragged.flat_positions()].tolist() == ragged.flat().tolist()
    assert ragged.row_numbers().tolist() == [i for i, row in enumerate(rows) for _ in row]
    assert lists(Ragged.from_offsets(ragged.flat(), ragged.offsets())) == rows
    for n in (0, 1, 3):
        assert lists(ragged.last(n)) == [row[len(row) - min(n, len(row)) :] for row in rows]
    keep = ragged.flat() % 2 == 0
    assert lists(ragged.where(keep)) == [[value for value in row if value % 2 == 0] for row in rows]
    assert lists(ragged[::-1]) == rows[::-1]
    picked = np.arange(len(rows))[::2]
    assert lists(ragged[picked]) == rows[::2]


@given(overlapping(), st.integers(1, 12))
def test_distinct(both: tuple[Ragged, list[list[int]]], n_values: int) -> None:
    ragged, rows = both
    assert lists(ragged.distinct(n_values)) == [sorted({v for v in row if 0 <= v < n_values}) for row in rows]


@given(overlapping(), st.data())
def test_without_and_joined(both: tuple[Ragged, list[list[int]]], data: st.DataObject) -> None:
    ragged, rows = both
    others = data.draw(st.lists(st.lists(st.integers(-3, 12), max_size=5), min_size=len(rows), max_size=len(rows)))
    other = Ragged.of(others)
    assert lists(ragged.without(other)) == [
        [value for value in row if value < 0 or value not in away] for row, away in zip(rows, others, strict=True)
    ]
    assert lists(ragged.joined(other)) == [row + more for row, more in zip(rows, others, strict=True)]


def test_empty() -> None:
    assert lists(Ragged.empty(3)) == [[], [], []]
    assert lists(Ragged.of([])) == []
    assert Ragged.of([]).flat().tolist() == []
    assert Ragged.empty(2).distinct(5).flat().tolist() == []


def test_consecutive_rows_are_not_copied() -> None:
    values = np.arange(10)
    ragged = Ragged.from_lengths(values, np.array([2, 3, 5]))
    assert np.shares_memory(ragged.flat(), values)
    assert np.shares_memory(ragged[1:].flat(), values)
    assert ragged[1:].flat().tolist() == list(range(2, 10))
