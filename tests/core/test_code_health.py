"""Numbers that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from palate.core.code_health import agree, health
from palate.core.codes import Codes
from palate.core.errors import DataError
from palate.core.naming import all_live, level_codes


def test_use_and_balance_by_hand() -> None:
    numbers = np.array([[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [2, 0], [3, 0]])
    found = health(
        level_codes(numbers, [4, 8]), facts={"places": [4, 8], "repair": {"nearest": 6, "first_pass": 5}, "twins": 2}
    )
    first, second = found.places
    assert (first.items, first.used, first.known, first.largest) == (8, 4, 4, 4)
    assert first.entropy == pytest.approx(0.5 * 1 + 0.25 * 2 + 2 * 0.125 * 3)
    assert first.balance == pytest.approx(first.entropy / 2)
    assert (second.used, second.known) == (4, 8)
    assert (found.collisions_first, found.collisions, found.agreement) == (5, 0, None)
    table = found.table()
    assert "collisions: 6 by nearest codes, 5 after the first pass (2 twins), 0 now, of 8 items" in table
    assert "4/8" in table


def test_names_of_different_lengths_without_code_book() -> None:
    codes = Codes(np.array([[0, 1], [2, -1], [0, 2]], dtype=np.int32), ("a", "b", "c"), True, all_live(3))
    first, second = health(codes).places
    assert (first.items, second.items, second.used, second.known) == (3, 2, 2, 0)
    assert second.balance == 1.0
    assert health(codes).collisions_first is None


def test_names_that_follow_vectors_agree_and_drawn_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    kinds = np.arange(400) % 20
    vectors = (np.eye(20)[kinds] + 0.01 * rng.normal(size=(400, 20))).astype(np.float32)
    good = agree(np.column_stack([kinds, np.arange(400) // 20]), vectors)
    assert good.first == 1
    assert good.first_chance == pytest.approx(19 / 399)
    assert good.overlap == pytest.approx(10 / 19, abs=0.01)  # ten of nineteen that are alike by name
    assert good.chance == pytest.approx(10 / 399)
    drawn = agree(np.column_stack([rng.permutation(kinds), np.arange(400) // 20]), vectors)
    assert drawn.first == pytest.approx(drawn.first_chance, abs=0.02)
    assert drawn.overlap == pytest.approx(drawn.chance, abs=0.02)
    second = np.column_stack([rng.permutation(400), kinds])
    assert agree(second, vectors, ordered=False).overlap == pytest.approx(10 / 19, abs=0.01)
    assert agree(second, vectors).overlap == pytest.approx(10 / 399, abs=0.02)


def test_other_items() -> None:
    with pytest.raises(DataError, match="3 names and 2 vectors are not of the same items"):
        agree(np.arange(3)[:, None], np.zeros((2, 4), dtype=np.float32))
