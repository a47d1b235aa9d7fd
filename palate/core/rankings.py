"""Answers: the best k items of each request, and the only functions that turn score blocks into them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.core.ragged import IntArray, Ragged
from palate.core.top_k import NOTHING, Keys, best_keys, decoded, keys_of, padded

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
        for i, (rows, scores) in enumerate(zip(self.item_rows.tolist(), self.scores.tolist(), strict=True)):
            reasons = () if self.reasons is None else self.reasons[i]
            yield Ranking(
                items=tuple([item_ids[row] for row in rows if row >= 0]),
                scores=tuple([score for row, score in zip(rows, scores, strict=True) if row >= 0]),
                reasons=tuple([reason for row, reason in zip(rows, reasons, strict=False) if row >= 0]),
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
    """The best ``k`` of each row of consecutive score blocks ``[b, N]``; blocks are read once and overwritten.

    Ties go to the lower item row. NaN scores, items left out and items that are no candidates are never answered.
    """
    found: list[Keys] = []
    start = 0
    for block in blocks:
        stop = start + len(block)
        left = None if leave_out is None else leave_out[start:stop]
        if candidates is None:
            found.append(best_keys(_masked(block, left), k))
        else:
            found.append(_best_among(block, k, candidates[start:stop], left))
        start = stop
    if not found:
        return Rankings(np.zeros((0, k), dtype=np.int64), np.zeros((0, k), dtype=np.float32))
    return Rankings(*decoded(np.concatenate(found)))


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


def _masked(block: Block, leave_out: Ragged | None) -> Block:
    """The block with NaN where an item is left out."""
    if leave_out is None:
        return block
    flat = leave_out.flat()
    inside = (flat >= 0) & (flat < block.shape[1])
    if not block.flags.writeable:
        block = block.copy()
    block[leave_out.row_numbers()[inside], flat[inside]] = np.nan
    return block


def _best_among(block: Block, k: int, candidates: Ragged, leave_out: Ragged | None) -> Keys:
    """``[b, k]`` keys of the best candidates: only their scores are read."""
    asked = candidates.distinct(block.shape[1])
    if leave_out is not None:
        asked = asked.without(leave_out)
    rows, items = asked.row_numbers(), asked.flat()
    keys = padded(keys_of(np.asarray(block[rows, items], dtype=np.float32), items), rows, len(block))
    keys.sort(axis=1)
    best = np.full((len(block), k), NOTHING)
    width = min(k, keys.shape[1])
    best[:, :width] = keys[:, :width]
    return best
