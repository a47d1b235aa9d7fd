"""Names of items: checked, found again, grown and retired."""

from __future__ import annotations

import numpy as np
import pytest

from palate.core.codes import Codes
from palate.core.errors import DataError

WORDS = ("a0", "a1", "b0", "b1", "b2")


def codes(rows: list[list[int]]) -> Codes:
    return Codes(np.array(rows, dtype=np.int32), WORDS, True, np.ones(len(rows), dtype=bool))


def test_every_item_is_found_by_its_name_and_nothing_by_another() -> None:
    names = codes([[0, 2], [1, -1], [0, 3], [1, 2]])
    np.testing.assert_array_equal(names.decode(names.encode(np.arange(4))), np.arange(4))
    np.testing.assert_array_equal(names.decode(np.array([[0, 4], [0, -1], [1, 2], [-1, -1]])), [-1, -1, 3, -1])
    np.testing.assert_array_equal(names.decode(np.array([[1]])), [1])
    assert [names.spell(row) for row in range(4)] == ["a0b0", "a1", "a0b1", "a1b0"]
    np.testing.assert_array_equal(names.lengths, [2, 1, 2, 2])


def test_large_random_names_agree_with_a_dictionary() -> None:
    rng = np.random.default_rng(0)
    tokens = np.unique(rng.integers(0, 40, (3000, 3)).astype(np.int32), axis=0)
    tokens = tokens[rng.permutation(len(tokens))]
    names = Codes(tokens, tuple(map(str, range(40))), True, np.ones(len(tokens), dtype=bool))
    asked = rng.integers(0, 40, (5000, 3)).astype(np.int32)
    known = {tuple(row): place for place, row in enumerate(tokens.tolist())}
    np.testing.assert_array_equal(names.decode(asked), [known.get(tuple(row), -1) for row in asked.tolist()])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 2], [1, 2], [0, 2]], "items 0 and 2 have the same name"),
        ([[0, 5]], "not in the vocabulary"),
        ([[-1, 2]], "empty or has a hole"),
        ([[-1, -1]], "empty or has a hole"),
    ],
)
def test_names_that_name_nothing_are_refused(rows: list[list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        codes(rows)


def test_two_tokens_never_read_alike() -> None:
    with pytest.raises(DataError, match="read alike"):
        Codes(np.array([[0]], dtype=np.int32), ("x", "x"), True, np.ones(1, dtype=bool))


def test_new_names_stand_behind_and_old_ones_stay() -> None:
    names = codes([[0, 2], [1, -1]])
    grown = names.grown(np.array([[5, 0, 1], [0, 3, -1]], dtype=np.int32), ["c0"])
    np.testing.assert_array_equal(grown.tokens, [[0, 2, -1], [1, -1, -1], [5, 0, 1], [0, 3, -1]])
    assert grown.vocabulary == (*WORDS, "c0")
    np.testing.assert_array_equal(grown.decode(np.array([[5, 0, 1], [0, 2, -1]])), [2, 0])
    with pytest.raises(DataError, match="items 0 and 2 have the same name"):
        names.grown(np.array([[0, 2]], dtype=np.int32))


def test_names_begin_others_where_each_stayed() -> None:
    names = codes([[0, 2], [1, 3]])
    wider = names.grown(np.array([[1, 2, 5]], dtype=np.int32), ("c0",))
    assert names.begins(names)
    assert names.begins(names.retired(np.array([0])))
    assert names.begins(wider)
    assert not wider.begins(names)
    assert not names.begins(codes([[0, 2], [1, 4]]))
    assert not names.begins(codes([[0, 2]]))


def test_a_retired_item_keeps_its_name_and_is_not_found() -> None:
    names = codes([[0, 2], [1, -1]]).retired(np.array([0]))
    np.testing.assert_array_equal(names.decode(np.array([[0, 2], [1, -1]])), [-1, 1])
    with pytest.raises(DataError, match="same name"):
        names.grown(np.array([[0, 2]], dtype=np.int32))
    np.testing.assert_array_equal(names.retired(np.array([0]), back=True).decode(np.array([[0, 2]])), [0])
