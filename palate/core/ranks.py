"""Where the true answer stands: the expected rank of each target among all items that may be answered."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from palate.core.ragged import IntArray, Ragged
from palate.core.rankings import Block


def ranks(
    blocks: Iterable[Block], targets: IntArray, *, leave_out: Ragged | None = None, candidates: Ragged | None = None
) -> npt.NDArray[np.float64]:
    """``[B]`` expected rank of each target, 1 = first, from consecutive score blocks ``[b, N]``.

    Ties share their places: an item level with the target counts one half. NaN means "cannot score" and ties for
    last, as does a target that is left out, no candidate or outside the block. Blocks are read once, never kept.
    """
    placed: list[npt.NDArray[np.float64]] = []
    start = 0
    for block in blocks:
        stop = start + len(block)
        left = None if leave_out is None else leave_out[start:stop]
        asked = None if candidates is None else candidates[start:stop]
        placed.append(_ranks_of_block(block, targets[start:stop], left, asked))
        start = stop
    return np.concatenate(placed) if placed else np.zeros(0)


def _ranks_of_block(
    block: Block, targets: IntArray, leave_out: Ragged | None, candidates: Ragged | None
) -> npt.NDArray[np.float64]:
    b, n = block.shape
    allowed = np.ones((b, n), dtype=bool)
    if candidates is not None:
        allowed[:] = False
        rows, items = candidates.row_numbers(), candidates.flat()
        inside = (items >= 0) & (items < n)
        allowed[rows[inside], items[inside]] = True
    if leave_out is not None:
        rows, items = leave_out.row_numbers(), leave_out.flat()
        inside = (items >= 0) & (items < n)
        allowed[rows[inside], items[inside]] = False
    each = np.arange(b)
    inside = (targets >= 0) & (targets < n)
    own = np.where(inside, targets, 0)
    score = np.where(inside & allowed[each, own], block[each, own], np.nan)[:, None]
    scored = allowed & ~np.isnan(block)
    greater = np.count_nonzero(scored & (block > score), axis=1)
    level = np.count_nonzero(scored & (block == score), axis=1)
    unscored = n - np.count_nonzero(scored, axis=1)
    last = (n - unscored) + (np.maximum(unscored, 1) + 1) / 2
    return np.where(np.isnan(score[:, 0]), last, greater + (level + 1) / 2)
