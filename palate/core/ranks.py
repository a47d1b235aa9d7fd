"""Where the true answer stands: the places each target shares among all items that may be answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.core.ragged import IntArray, Ragged
from palate.core.rankings import Block

_CACHED_CELLS = 1 << 18
"""Cells compared at a time: one megabyte of scores stays in the cache of a core."""


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

    Ties share their places: an item level with the target counts one half. NaN means "cannot score" and ties for
    last, as does a target that is left out, no candidate or outside the block. Blocks are read once, never kept.
    """
    return places(blocks, targets, leave_out=leave_out, candidates=candidates).expected


def places(
    blocks: Iterable[Block], targets: IntArray, *, leave_out: Ragged | None = None, candidates: Ragged | None = None
) -> Places:
    """The same question as ``ranks``, answered with the whole tie group, which exact metrics under ties need.

    A target that cannot be scored shares the last places with the other items that may be answered and cannot be
    scored. Blocks are not changed.
    """
    found: list[tuple[IntArray, IntArray]] = []
    start = 0
    for block in blocks:
        stop = start + len(block)
        left = None if leave_out is None else leave_out[start:stop]
        own = np.asarray(targets[start:stop])
        if candidates is None:
            found.append(_among_all(block, own, left))
        else:
            found.append(_among_candidates(block, own, left, candidates[start:stop]))
        start = stop
    greater = np.concatenate([part[0] for part in found]) if found else np.zeros(0, dtype=np.int64)
    level = np.concatenate([part[1] for part in found]) if found else np.zeros(0, dtype=np.int64)
    return Places(greater + 1, greater + level)


def _among_all(block: Block, targets: IntArray, leave_out: Ragged | None) -> tuple[IntArray, IntArray]:
    """``[b]`` how many items are better than the target, and how many are level with it (itself included)."""
    b, n = block.shape
    score, answerable = _own_scores(block, targets)
    rows, items = (np.zeros(0, dtype=np.int64),) * 2 if leave_out is None else _distinct(leave_out, n)
    answerable[rows[items == targets[rows]]] = False
    score[~answerable] = np.nan
    greater = np.empty(b, dtype=np.int64)
    level = np.empty(b, dtype=np.int64)
    for part in _slices(b, n):
        greater[part] = _count(block[part] > score[part, None])
        level[part] = _count(block[part] == score[part, None])
    masked = block[rows, items]
    greater -= np.bincount(rows[masked > score[rows]], minlength=b)
    level -= np.bincount(rows[masked == score[rows]], minlength=b)
    lost = np.flatnonzero(np.isnan(score))
    if len(lost):
        unscored = np.concatenate([_count(np.isnan(block[lost[part]])) for part in _slices(len(lost), n)])
        left = np.bincount(rows, minlength=b)[lost]
        left_unscored = np.bincount(rows[np.isnan(masked)], minlength=b)[lost]
        greater[lost] = (n - unscored) - (left - left_unscored)
        level[lost] = unscored - left_unscored + ~answerable[lost]
    return greater, level


def _among_candidates(
    block: Block, targets: IntArray, leave_out: Ragged | None, candidates: Ragged
) -> tuple[IntArray, IntArray]:
    b, n = block.shape
    score, _ = _own_scores(block, targets)
    width = max(n, int(candidates.flat().max(initial=0)) + 1)
    rows, items = _distinct(candidates, width)
    if leave_out is not None:
        left_rows, left_items = _distinct(leave_out, width)
        stays = ~np.isin(rows * width + items, left_rows * width + left_items)
        rows, items = rows[stays], items[stays]
    answerable = np.bincount(rows[items == targets[rows]], minlength=b) > 0
    score[~answerable] = np.nan
    scores = np.full(len(rows), np.nan, dtype=block.dtype)
    inside = items < n
    scores[inside] = block[rows[inside], items[inside]]
    unscored = np.isnan(score)
    greater = np.bincount(rows[(scores > score[rows]) | (unscored[rows] & ~np.isnan(scores))], minlength=b)
    level = np.bincount(rows[(scores == score[rows]) | (unscored[rows] & np.isnan(scores))], minlength=b)
    return greater, level + ~answerable


def _own_scores(block: Block, targets: IntArray) -> tuple[Block, npt.NDArray[np.bool_]]:
    """``[b]`` the score of each target, NaN outside the block, and whether it is inside."""
    inside = (targets >= 0) & (targets < block.shape[1])
    own = block[np.arange(len(block)), np.where(inside, targets, 0)]
    return np.where(inside, own, np.nan).astype(block.dtype, copy=False), inside


def _distinct(items: Ragged, n_items: int) -> tuple[IntArray, IntArray]:
    """Row numbers and item rows below ``n_items``, sorted, each pair once."""
    flat = items.flat().astype(np.int64, copy=False)
    inside = (flat >= 0) & (flat < n_items)
    codes = np.sort(items.row_numbers()[inside] * n_items + flat[inside])
    codes = codes[np.diff(codes, prepend=-1) > 0]
    return codes // n_items, codes % n_items


def _slices(b: int, n: int) -> Iterator[slice]:
    step = max(1, _CACHED_CELLS // max(n, 1))
    return (slice(start, min(start + step, b)) for start in range(0, b, step))


def _count(flags: npt.NDArray[np.bool_]) -> IntArray:
    """How many flags of each row are set; counting packed bits is several times faster than summing."""
    return np.bitwise_count(np.packbits(flags, axis=1)).sum(axis=1, dtype=np.int64)
