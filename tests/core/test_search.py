"""Exact search against the full product. Small whole numbers make every product exact, so rows must be equal."""

from __future__ import annotations

import numpy as np
import pytest

from palate.core import search
from palate.core.ragged import Ragged
from palate.core.rankings import rank
from palate.core.search import dot_blocks, exact_top_k
from palate.core.top_k import top_k


def whole(rng: np.random.Generator, shape: tuple[int, int], levels: int = 3) -> np.ndarray:
    return rng.integers(-levels, levels + 1, shape).astype(np.float32)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles so small that a short catalogue needs many of them."""
    monkeypatch.setattr(search, "_TILE_BYTES", 4 * 16 * 300)
    monkeypatch.setattr(search, "_TILE_ROWS", 16)
    monkeypatch.setattr(search, "_BLOCK_BYTES", 4 * 7 * 5000)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("n", [1, 50, 299, 300, 301, 5000])
@pytest.mark.parametrize("b", [1, 16, 37])
@pytest.mark.parametrize("k", [0, 1, 10, 60, 400])
def test_many_tiles_are_one_product(n: int, b: int, k: int) -> None:
    rng = np.random.default_rng(n * 100 + b)
    queries, items = whole(rng, (b, 6)), whole(rng, (n, 6))
    left = Ragged.of([rng.integers(0, n + 5, rng.integers(0, 30)) for _ in range(b)])
    found = exact_top_k(queries, items, k)
    rows, scores = top_k(queries @ items.T, k)
    np.testing.assert_array_equal(found.item_rows, rows)
    np.testing.assert_array_equal(found.scores, scores)
    assert found.exact
    masked = exact_top_k(queries, items, k, leave_out=left)
    expected = rank([queries @ items.T], k, leave_out=left)
    np.testing.assert_array_equal(masked.item_rows, expected.item_rows)
    np.testing.assert_array_equal(masked.scores, expected.scores)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("order", ["rising", "falling", "level", "nan first"])
def test_catalogues_in_a_bad_order(order: str) -> None:
    items = np.arange(4000, dtype=np.float32)[:, None]
    items = {"rising": items, "falling": items[::-1], "level": items * 0, "nan first": items.copy()}[order]
    if order == "nan first":
        items[:3900] = np.nan
    queries = np.array([[1.0], [-1.0], [2.0]], dtype=np.float32)
    found = exact_top_k(queries, items, 150)
    rows, scores = top_k(queries @ items.T, 150)
    np.testing.assert_array_equal(found.item_rows, rows)
    np.testing.assert_array_equal(found.scores, scores)


@pytest.mark.usefixtures("small_tiles")
def test_blocks_are_the_product() -> None:
    rng = np.random.default_rng(5)
    queries, items = whole(rng, (40, 6)), whole(rng, (5000, 6))
    blocks = [block.copy() for block in dot_blocks(queries, items)]
    assert [len(block) for block in blocks] == [7, 7, 7, 7, 7, 5]
    np.testing.assert_array_equal(np.concatenate(blocks), queries @ items.T)


def test_torch_tensors_are_taken_as_they_are() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(6)
    queries, items = whole(rng, (5, 8)), whole(rng, (700, 8))
    found = exact_top_k(torch.from_numpy(queries), torch.from_numpy(items), 9)
    np.testing.assert_array_equal(found.item_rows, top_k(queries @ items.T, 9)[0])
    np.testing.assert_array_equal(next(dot_blocks(torch.from_numpy(queries), items)), queries @ items.T)


def test_nothing_to_search() -> None:
    assert exact_top_k(np.zeros((0, 4)), np.zeros((9, 4)), 3).item_rows.shape == (0, 3)
    assert exact_top_k(np.zeros((2, 4)), np.zeros((0, 4)), 3).item_rows.tolist() == [[-1] * 3] * 2
    assert list(dot_blocks(np.zeros((0, 4)), np.zeros((9, 4)))) == []


def test_vectors_must_be_a_matrix() -> None:
    with pytest.raises(ValueError, match="must be a matrix"):
        exact_top_k(np.zeros(4), np.zeros((9, 4)), 3)


def test_one_query_alone_is_answered_as_in_a_batch() -> None:
    """One query takes another way through the product; on whole numbers both are exact."""
    rng = np.random.default_rng(7)
    queries, items = whole(rng, (9, 32)), whole(rng, (3000, 32))
    together = exact_top_k(queries, items, 20)
    for i in range(9):
        alone = exact_top_k(queries[i : i + 1], items, 20)
        np.testing.assert_array_equal(alone.item_rows[0], together.item_rows[i])
        np.testing.assert_array_equal(next(dot_blocks(queries[i : i + 1], items)), queries[i : i + 1] @ items.T)
