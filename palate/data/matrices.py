"""Tables → sparse matrices: who met what as rows of a CSR matrix, for systems that compute in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from palate.core.dataset import Dataset
from palate.core.ragged import Ragged
from palate.core.requests import Requests

if TYPE_CHECKING:
    from scipy.sparse import csr_array

BLOCK_BYTES = 32 * 2**20
"""Scores alive at once while a catalogue is scored."""


def user_items(train: Dataset, *, counts: bool = False) -> csr_array:
    """``[U, N]`` float32: 1 where the user met the item, or with ``counts`` how often."""
    return _incidence(train.histories, train.n_items, counts)


def request_items(
    requests: Requests, n_items: int, *, counts: bool = False, half_life_events: float | None = None
) -> csr_array:
    """``[B, N]`` float32 of the histories of ``requests``; items at or beyond ``n_items`` are ignored.

    With ``half_life_events`` an event counts ``0.5 ** (events after it / half-life)``; of an item met twice the
    newer event counts, or with ``counts`` both.
    """
    histories = requests.known(n_items).histories
    if half_life_events is None:
        return _incidence(histories, n_items, counts)
    ends = np.repeat(np.cumsum(histories.lengths), histories.lengths)
    age = ends - 1 - np.arange(len(ends))
    return _incidence(histories, n_items, counts, np.exp2(-age / half_life_events).astype(np.float32))


def in_blocks(requests: Requests, n_items: int) -> Iterator[Requests]:
    """Consecutive parts of ``requests``, each so large that its scores of ``n_items`` items fill about 32 MB."""
    rows = max(1, BLOCK_BYTES // (4 * max(n_items, 1)))
    for start in range(0, len(requests), rows):
        yield requests[start : start + rows]


def _incidence(rows: Ragged, n_columns: int, counts: bool, weights: np.ndarray | None = None) -> Any:
    from scipy.sparse import csr_array

    columns = rows.flat().astype(np.int32)  # a copy: the sort below must not touch the log itself
    offsets = rows.offsets()
    offsets = offsets.astype(np.int32 if offsets[-1] < 2**31 else np.int64)
    values = np.ones(len(columns), dtype=np.float32) if weights is None else weights
    matrix = csr_array((values, columns, offsets), shape=(len(rows), n_columns))
    if counts or weights is None:
        matrix.sum_duplicates()
        if not counts:
            matrix.data[:] = 1
        return matrix
    return _newest(rows, n_columns, matrix)


def _newest(rows: Ragged, n_columns: int, matrix: Any) -> Any:
    """Of an item that stands twice in a row, only the later (heavier) entry."""
    cell = rows.row_numbers() * n_columns + matrix.indices
    order = np.lexsort((-matrix.data, cell))
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = cell[order][1:] != cell[order][:-1]
    kept = np.zeros(len(order), dtype=np.float32)
    kept[order[first]] = matrix.data[order[first]]
    matrix.data = kept
    matrix.sum_duplicates()
    return matrix
