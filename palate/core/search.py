"""Scores by dot product: blocks for ``rank`` and ``ranks``, and exact search that never holds ``[B, N]``.

Search multiplies a tile of queries by a tile of items and sifts the tile while it is still in the cache. Once k
candidates are known, the k-th best of them is a bar: a later tile costs one comparison, and only what clears the bar
is looked at again. Tiles are taken in item order, so a score level with the bar loses to the lower item row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from palate.core.ragged import Ragged
from palate.core.rankings import Rankings
from palate.core.top_k import (
    NOTHING,
    FloatArray,
    Keys,
    best_keys,
    decoded,
    eights,
    keys_of,
    padded,
    scores_of,
    true_positions,
)

_BLOCK_BYTES = 32 << 20
_TILE_BYTES = 16 << 20
_TILE_ROWS = 256


def dot_blocks(queries: npt.ArrayLike | Any, items: npt.ArrayLike | Any) -> Iterator[FloatArray]:
    """Scores ``[b, N]`` of consecutive queries ``[B, D]`` against items ``[N, D]``, float32.

    Takes NumPy arrays and CPU torch tensors without gradient, without a copy. All blocks share one buffer: a block
    is valid until the next one is asked for, which is how ``rank``, ``ranks`` and ``pick`` read.
    """
    queries, items = _matrix(queries), _matrix(items)
    step = max(1, min(len(queries), _BLOCK_BYTES // (4 * max(1, len(items)))))
    buffer = np.empty((step, len(items)), dtype=np.float32)
    for start in range(0, len(queries), step):
        part = queries[start : start + step]
        yield _product(part, items, buffer[: len(part)])


def exact_top_k(
    queries: npt.ArrayLike | Any, items: npt.ArrayLike | Any, k: int, *, leave_out: Ragged | None = None
) -> Rankings:
    """The k items ``[N, D]`` of largest dot product with each query ``[B, D]``, the same answer as
    ``rank(dot_blocks(queries, items), k, leave_out=leave_out)`` up to the rounding of the products.

    Takes NumPy arrays and CPU torch tensors without gradient, without a copy; holds a few megabytes whatever B and N.
    """
    queries, items = _matrix(queries), _matrix(items)
    best = np.full((len(queries), k), NOTHING)
    if k and len(items):
        for start in range(0, len(queries), _TILE_ROWS):
            stop = min(start + _TILE_ROWS, len(queries))
            left = None if leave_out is None else leave_out[start:stop].distinct(len(items))
            best[start:stop] = _search(queries[start:stop], items, k, left)
    return Rankings(*decoded(best))


def _search(queries: FloatArray, items: FloatArray, k: int, leave_out: Ragged | None) -> Keys:
    """``[b, k]`` the best keys of one tile of queries."""
    b, n = len(queries), len(items)
    width = min(n, max(4 * k, _TILE_BYTES // (4 * b)))
    buffer = np.empty(b * width, dtype=np.float32)
    masked = None if leave_out is None else _by_item(leave_out)
    best: Keys | None = None
    waiting: list[Keys] = []
    bar = np.empty(0, dtype=np.float32)
    for first in range(0, n, width):
        tile = items[first : first + width]
        scores = _product(queries, tile, buffer[: b * len(tile)].reshape(b, len(tile)))
        if masked is not None:
            lower, upper = np.searchsorted(masked[0], [first, first + len(tile)])
            scores[masked[1][lower:upper], masked[0][lower:upper] - first] = np.nan
        if best is None:
            best = best_keys(scores, k)
            bar = scores_of(best[:, -1])
            continue
        waiting.append(_above(scores, bar, k, first))
        if sum(keys.shape[1] for keys in waiting) >= k:
            best = _merged(best, waiting)
            bar, waiting = scores_of(best[:, -1]), []
    assert best is not None
    return _merged(best, waiting) if waiting else best


def _product(queries: FloatArray, items: FloatArray, out: FloatArray) -> FloatArray:
    """``[b, n]`` dot products, written into ``out``."""
    if len(queries) > 1:
        return np.matmul(queries, items.T, out=out)
    np.matmul(items, queries[0], out=out[0])  # matrix times vector: less work to set up than a product of two matrices
    return out


def _above(scores: FloatArray, bar: FloatArray, k: int, first_column: int) -> Keys:
    """Keys ``[b, few]`` of the scores above the bar ``[b]``; at most the k best of each row matter."""
    b, n = scores.shape
    if np.isnan(bar).any():  # some row does not have k candidates yet
        return best_keys(scores, k, first_column)
    flags = np.zeros((b, eights(n)), dtype=bool)
    np.greater(scores, bar[:, None], out=flags[:, :n])
    if np.count_nonzero(flags) > 2 * b * k:
        return best_keys(scores, k, first_column)
    rows, columns = true_positions(flags)
    return padded(keys_of(scores[rows, columns], columns + first_column), rows, b)


def _merged(best: Keys, waiting: list[Keys]) -> Keys:
    keys = np.concatenate([best, *waiting], axis=1)
    keys.sort(axis=1)
    return keys[:, : best.shape[1]]


def _by_item(leave_out: Ragged) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """Item rows in ascending order, and the request row beside each."""
    items = leave_out.flat()
    order = np.argsort(items, kind="stable")
    return items[order], leave_out.row_numbers()[order]


def _matrix(vectors: npt.ArrayLike | Any) -> FloatArray:
    matrix = np.asarray(vectors, dtype=np.float32)
    if matrix.ndim != 2:
        raise ValueError(f"vectors must be a matrix [rows, D], not {matrix.ndim}-dimensional")
    return matrix
