"""Item vectors belong to a text and to a state of the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from palate.core import store
from palate.core.errors import DataError, StoreError
from palate.core.item_vectors import ItemVectors, keys_of
from palate.core.protocols import FloatArray


class Counting:
    """Item i becomes (i, calls); remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, rows: npt.NDArray[np.integer]) -> FloatArray:
        self.asked.append(rows.tolist())
        return np.stack([rows, np.full(len(rows), len(self.asked))], 1).astype(np.float32)


def test_only_what_is_new_or_changed_is_encoded() -> None:
    encode = Counting()
    first = ItemVectors.of("v1", keys_of(["a", "b", "c"]), encode)
    same = first.refreshed("v1", keys_of(["a", "b", "c"]), encode)
    grown = same.refreshed("v1", keys_of(["a", "B", "c", "d"]), encode)
    assert encode.asked == [[0, 1, 2], [1, 3]]
    np.testing.assert_array_equal(grown.vectors[:, 1], [1, 2, 1, 2])
    other = grown.refreshed("v2", keys_of(["a", "B", "c", "d"]), encode)
    assert encode.asked[-1] == [0, 1, 2, 3], "other weights, all of them"
    assert other.version == "v2"


def test_retired_items_stay_retired_when_the_catalogue_grows() -> None:
    held = ItemVectors.of("v1", keys_of(["a", "b"]), Counting()).retired(np.array([0]))
    assert held.refreshed("v1", keys_of(["a", "b", "c"]), Counting()).live.tolist() == [False, True, True]
    assert held.retired(np.array([0]), back=True).live.all()
    with pytest.raises(DataError, match="only item rows from 0 to 1 can be retired"):
        held.retired(np.array([2]))
    with pytest.raises(DataError, match="items are retired"):
        held.refreshed("v1", keys_of(["a"]), Counting())


def test_vectors_of_other_weights_are_refused_and_saved_ones_come_back(tmp_path: Path) -> None:
    held = ItemVectors.of("v1", keys_of(["a", "b\0c"]), Counting()).retired(np.array([1]))
    held.save(tmp_path / "x")
    again = store.load(tmp_path / "x")
    for own, other in ((again.keys, held.keys), (again.vectors, held.vectors), (again.live, held.live)):
        np.testing.assert_array_equal(own, other)
    again.require("v1")
    with pytest.raises(StoreError, match="made by other weights"):
        again.require("v2")


def test_a_vector_that_is_not_a_number_is_an_error() -> None:
    with pytest.raises(DataError, match="not a number"):
        ItemVectors.of("v1", keys_of(["a"]), lambda rows: np.full((len(rows), 2), np.nan, np.float32))
    with pytest.raises(DataError, match="not a vector an item"):
        ItemVectors.of("v1", keys_of(["a", "b"]), lambda rows: np.zeros((1, 2), np.float32))
