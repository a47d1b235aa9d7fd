"""Where the true answer stands: the places each target shares among all items that may be answered.

A rank is a count, so nothing is sorted: scores are compared with the target's, a cache-sized piece at a time, and
what is left out is gathered and subtracted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.core.ragged import IntArray, Ragged
from palate.core.rankings import Block

_CACHED_CELLS = 1 << 17
"""Cells compared at a time: half a megabyte of scores stays in the cache of a core."""

_RUN = 255
"""Words of flags added at once."""


@dataclass(frozen=True, eq=False)
class Places:
    """The tie group of each target: it stands somewhere from ``first`` to ``last`` (``[B]`` int64, 1 = best)."""

    first: IntArray
    last: IntArray

    @property
    def expected(self) -> npt.NDArray[np.float64]:
        """``[B]`` the expected rank when ties are broken by lot."""
        return (self.first + self.last) / 2

    @property
    def tied(self) -> IntArray:
        """``[B]`` how many items share the places, the target among them; 1 = no tie."""
        return self.last - self.first + 1


def ranks(
    blocks: Iterable[Block], targets: IntArray, *, leave_out: Ragged | None = None, candidates: Ragged | None = None
) -> npt.NDArray[np.float64]:
    """``[B]`` expected rank of each target, 1 = first, from consecutive score blocks ``[b, N]``.

    Ties share their places: an item level with the target counts one half. NaN means "cannot score": such items tie
    for last among those that may be answered, and a target that is left out, no candidate or outside the block ties
    with them. Blocks are read once, never written, never kept.
    """
    return places(blocks, targets, leave_out=leave_out, candidates=candidates).expected


def places(
    blocks: Iterable[Block], targets: IntArray, *, leave_out: Ragged | None = None, candidates: Ragged | None = None
) -> Places:
    """The same question as ``ranks``, answered with the whole tie group, which exact metrics under ties need.

    A target that cannot be scored shares the last places with the other items that may be answered and cannot be
    scored. Blocks are not changed.
    """
    targets = np.asarray(targets, dtype=np.int64)
    found: list[tuple[IntArray, IntArray]] = []
    start = 0
    for block in blocks:
        stop = start + len(block)
        own = targets[start:stop]
        if len(own) != len(block):
            raise ValueError(f"the blocks hold more rows than the {len(targets)} targets")
        block = np.asarray(block, dtype=np.float32)
        left = None if leave_out is None else leave_out[start:stop]
        if candidates is None:
            found.append(_among_all(block, own, left))
        else:
            found.append(_among_candidates(block, own, left, candidates[start:stop]))
        start = stop
    if start != len(targets):
        raise ValueError(f"the blocks hold {start} rows for {len(targets)} targets")
    greater = np.concatenate([part[0] for part in found]) if found else np.zeros(0, dtype=np.int64)
    level = np.concatenate([part[1] for part in found]) if found else np.zeros(0, dtype=np.int64)
    return Places(greater + 1, greater + level)


def _among_all(block: Block, targets: IntArray, leave_out: Ragged | None) -> tuple[IntArray, IntArray]:
    """``[b]`` how many items are better than the target, and how many are level with it (itself included)."""
    b, n = block.shape
    score, answerable = _own_scores(block, targets)
    left = Ragged.empty(b) if leave_out is None else leave_out.distinct(n)
    rows, items = left.row_numbers(), left.flat()
    answerable[rows[items == targets[rows]]] = False
    score[~answerable] = np.nan
    greater, level = _count(block, score)
    masked = block[rows, items]
    greater -= np.bincount(rows[masked > score[rows]], minlength=b)
    level -= np.bincount(rows[masked == score[rows]], minlength=b)
    lost = np.flatnonzero(np.isnan(score))
    if len(lost):
        unscored = np.fromiter((np.count_nonzero(np.isnan(block[row])) for row in lost), np.int64, len(lost))
        left_unscored = np.bincount(rows[np.isnan(masked)], minlength=b)[lost]
        greater[lost] = (n - unscored) - (left.lengths[lost] - left_unscored)
        level[lost] = unscored - left_unscored + ~answerable[lost]
    return greater, level


def _among_candidates(
    block: Block, targets: IntArray, leave_out: Ragged | None, candidates: Ragged
) -> tuple[IntArray, IntArray]:
    """The same among the named candidates alone: only their scores are read."""
    b, n = block.shape
    asked = candidates.distinct(max(n, int(candidates.flat().max(initial=0)) + 1))
    if leave_out is not None:
        asked = asked.without(leave_out)
    rows, items = asked.row_numbers(), asked.flat()
    scores = np.full(len(rows), np.nan, dtype=np.float32)
    inside = items < n
    scores[inside] = block[rows[inside], items[inside]]
    own = items == targets[rows]
    score = np.full(b, np.nan, dtype=np.float32)
    score[rows[own]] = scores[own]
    unscored = np.isnan(score)[rows]
    greater = np.bincount(rows[(scores > score[rows]) | (unscored & ~np.isnan(scores))], minlength=b)
    level = np.bincount(rows[(scores == score[rows]) | (unscored & np.isnan(scores))], minlength=b)
    return greater, level + (np.bincount(rows[own], minlength=b) == 0)


def _own_scores(block: Block, targets: IntArray) -> tuple[Block, npt.NDArray[np.bool_]]:
    """``[b]`` the score of each target, NaN outside the block, and whether it is inside."""
    inside = (targets >= 0) & (targets < block.shape[1])
    score = np.full(len(block), np.nan, dtype=np.float32)
    rows = np.flatnonzero(inside)
    score[rows] = block[rows, targets[rows]]
    return score, inside


def _count(block: Block, score: Block) -> tuple[IntArray, IntArray]:
    """``[b]`` how many scores of each row are above, and how many level with, the score of that row.

    Flags are added as 8-byte words, at most 255 at a time so that no byte overflows: several times faster than
    summing booleans.
    """
    b, n = block.shape
    step = max(1, _CACHED_CELLS // max(n, 1))
    words = -(-n // (8 * _RUN)) * _RUN
    flags = np.zeros((2, min(step, b), 8 * words), dtype=bool)
    counts = np.empty((2, b), dtype=np.int64)
    for start in range(0, b, step):
        piece, bar = block[start : start + step], score[start : start + step, None]
        # The first comparison brings the piece into the cache, the second finds it there.
        used = flags[:, : len(piece)]
        np.greater(piece, bar, out=used[0, :, :n])
        np.equal(piece, bar, out=used[1, :, :n])
        sums = np.add.reduce(used.view(np.uint64).reshape(2, len(piece), -1, _RUN), axis=3)
        counts[:, start : start + step] = sums.view(np.uint8).reshape(2, len(piece), -1).sum(axis=2, dtype=np.int64)
    return counts[0], counts[1]
