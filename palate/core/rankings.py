"""Answers: the best k items of each request, and the only functions that turn score blocks into them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.core.ragged import IntArray, Ragged

Block = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Ranking:
    """One answer in outside ids, best first."""

    items: tuple[str, ...]
    scores: tuple[float, ...]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Rankings:
    """Answers of B requests as columns, best first.

    item_rows   ``[B, k]`` int64; -1 where a request has fewer than k answers
    scores      ``[B, k]`` float32; NaN beside -1
    exact       False when a search (beam) may have missed a better item
    reasons     B tuples of k sentences, or None
    """

    item_rows: IntArray
    scores: npt.NDArray[np.float32]
    exact: bool = True
    reasons: tuple[tuple[str, ...], ...] | None = None

    def __len__(self) -> int:
        return len(self.item_rows)

    def named(self, item_ids: Sequence[str]) -> Iterator[Ranking]:
        """One ``Ranking`` a request, with outside ids."""
        for i, (rows, scores) in enumerate(zip(self.item_rows, self.scores, strict=True)):
            found = rows >= 0
            yield Ranking(
                items=tuple(item_ids[row] for row in rows[found]),
                scores=tuple(float(score) for score in scores[found]),
                reasons=self.reasons[i] if self.reasons is not None else (),
            )

    @classmethod
    def joined(cls, parts: Sequence[Rankings]) -> Rankings:
        """Batches one after another."""
        reasons = None
        if parts and all(part.reasons is not None for part in parts):
            reasons = tuple(reason for part in parts for reason in part.reasons or ())
        return cls(
            np.concatenate([part.item_rows for part in parts]),
            np.concatenate([part.scores for part in parts]),
            all(part.exact for part in parts),
            reasons,
        )


def rank(
    blocks: Iterable[Block], k: int, *, leave_out: Ragged | None = None, candidates: Ragged | None = None
) -> Rankings:
    """The best ``k`` of each row of consecutive score blocks ``[b, N]``; blocks are overwritten.

    Ties go to the lower item row. NaN scores, items left out and items that are no candidates are never answered.
    """
    found: list[IntArray] = []
    scores: list[npt.NDArray[np.float32]] = []
    start = 0
    for block in blocks:
        stop = start + len(block)
        if candidates is not None:
            block = _only(block, candidates[start:stop])
        if leave_out is not None:
            place_rows, item_rows = _inside(leave_out[start:stop], block.shape[1])
            block[place_rows, item_rows] = np.nan
        rows, values = top_k(block, k)
        found.append(rows)
        scores.append(values)
        start = stop
    if not found:
        return Rankings(np.zeros((0, k), dtype=np.int64), np.zeros((0, k), dtype=np.float32))
    return Rankings(np.concatenate(found), np.concatenate(scores))


def pick(blocks: Iterable[Block], candidates: Ragged) -> npt.NDArray[np.float32]:
    """The scores of the candidates of each request, flat: ``[sum of C]``. NaN for a row the blocks do not hold."""
    picked = []
    start = 0
    for block in blocks:
        asked = candidates[start : start + len(block)]
        items = asked.flat()
        inside = (items >= 0) & (items < block.shape[1])
        values = np.full(len(items), np.nan, dtype=np.float32)
        values[inside] = block[asked.row_numbers()[inside], items[inside]]
        picked.append(values)
        start += len(block)
    return np.concatenate(picked) if picked else np.zeros(0, dtype=np.float32)


def top_k(scores: Block, k: int) -> tuple[IntArray, npt.NDArray[np.float32]]:
    """Rows and scores ``[b, k]`` of the k largest of each row, best first, ties to the lower column, NaN never.

    Where a row has fewer than k numbers, -1 and NaN fill the end.
    """
    b, n = scores.shape
    width = min(k, n)
    clean = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(-clean, axis=1, kind="stable")[:, :width]
    values = np.take_along_axis(scores, order, axis=1)
    missing = np.isnan(values)
    rows = np.full((b, k), -1, dtype=np.int64)
    best = np.full((b, k), np.nan, dtype=np.float32)
    rows[:, :width] = np.where(missing, -1, order)
    best[:, :width] = values
    return rows, best


def _inside(items: Ragged, n_items: int) -> tuple[IntArray, IntArray]:
    """Row numbers and item rows of the entries that a block of ``n_items`` columns holds."""
    flat = items.flat().astype(np.int64, copy=False)
    inside = (flat >= 0) & (flat < n_items)
    return items.row_numbers()[inside], flat[inside]


def _only(block: Block, candidates: Ragged) -> Block:
    rows, items = _inside(candidates, block.shape[1])
    kept = np.full_like(block, np.nan)
    kept[rows, items] = block[rows, items]
    return kept
