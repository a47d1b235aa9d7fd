"""From the nearest codes to codes that differ: no two items keep the same row of numbers.

Three steps, each only for items that need it:

1. *room*: below a code of level h only so many names exist (V of the last level); items beyond that move to the next
   code that has room, the farthest first. Many items of one text need this.
2. *uniform*: each group that shares all its codes is spread over the last level by Sinkhorn (LC-Rec, Zheng et al. 2024,
   arXiv 2311.09049), past the codes that neighbours below the same codes hold, until a round brings nothing. The
   first round, which is the published loop, does not part near twins: of fifty items a hundred-thousandth of the codes'
   distances apart about 7 still collide, of 120 about 34, since fifty rounds do not balance rows; later rounds part
   them.
3. *matching*: items that still share take, at the least total distance, last-level codes that nobody below the same
   codes has. It always succeeds, also for identical vectors.

Codes that are given stay: new items are named around them. Shapes: n items, H levels, V codes of a level.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palate.core.errors import DataError
from palate.parts.kmeans import CHUNK, fill
from palate.parts.sinkhorn import UniformConfig, sinkhorn

Rows = npt.NDArray[np.integer]
TieBreak = Literal["match", "counter"]
"""Items that share codes take free ones of the last level, or get one more number that counts them (TIGER)."""
ROUNDS = 20
"""Of spreading, at most; LC-Rec's number."""
BLOCK = 65_536
"""Items whose distances are alive at once while groups are repaired."""


class Coder(Protocol):
    """What can tell how far items are from the codes of a level."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes of each level."""

    def distances(self, points: Tensor, codes: Tensor, level: int) -> Tensor:
        """``[n, V]`` squared distances at ``level`` of ``points`` that have ``codes`` ``[n, >= level]`` above it, in
        the precision of ``points``."""


@dataclass(frozen=True)
class Repair:
    """What became of ``items``. Collisions are items minus different rows of codes, as in LC-Rec's collision rate."""

    items: int
    nearest: int
    """Collisions if each item took the nearest code of each level."""
    first_pass: int
    """Collisions of the first assignment: the nearest codes, or where codes are spread, one round of that."""
    moved_up: int = 0
    """Items that took another code above the last level because the one they wanted was full."""
    after_uniform: int = 0
    """Collisions that were left when groups had been spread evenly."""
    matched: int = 0
    """Items that took part in the matching."""
    counted: int = 0
    """Items that a tie-break token tells apart."""


def encode(coder: Coder, points: Tensor) -> Rows:
    """``[n, H]`` at each level the nearest code."""
    return _nearest_from(coder, points, np.zeros((len(points), len(coder.sizes)), dtype=np.int64), 0)


def collisions(codes: Rows) -> int:
    """Items minus different rows."""
    return len(codes) - int(groups_of(codes).max(initial=-1)) - 1


def groups_of(codes: Rows) -> Rows:
    """``[n]`` the same number for the same row of ``codes`` ``[n, H]``, numbered in the order of rows."""
    group = np.zeros(len(codes), dtype=np.int64)
    for column in codes.T:
        key = group * (int(column.max(initial=0)) + 1) + column
        group = np.unique(key, return_inverse=True)[1]
    return group


def separate(
    coder: Coder, points: Tensor, codes: Rows, order: Rows, *, uniform: UniformConfig | None = None,
    taken: Rows | None = None, match: bool = True,
) -> tuple[Rows, Repair]:  # fmt: skip
    """``[n, H]`` codes that differ from each other and from ``taken`` ``[N, H]``; ``order`` ``[n]`` (a permutation)
    decides between items that are alike. Without ``match`` only the uniform step is done, and rows may still be equal.

    Raises ``DataError`` when there are fewer names than items.
    """
    taken = np.zeros((0, codes.shape[1]), dtype=np.int64) if taken is None else taken
    if len(codes) + len(taken) > prod(coder.sizes) and match:
        raise DataError(
            f"{len(codes) + len(taken):,} items do not fit into {prod(coder.sizes):,} names: more levels or codes"
        )
    nearest = collisions(np.concatenate([taken, codes]))
    done = Repair(len(codes), nearest, nearest)
    back = np.argsort(order)
    points, codes = points[torch.from_numpy(order)], codes[order]
    if match:
        moved = _make_room(coder, points, codes, taken)
        done = replace(done, moved_up=int((moved[:, :-1] != codes[:, :-1]).any(1).sum()))
        codes = moved
    if uniform is not None:
        codes, first_pass = _spread(coder, points, codes, uniform)
        done = replace(done, first_pass=first_pass)
    done = replace(done, after_uniform=collisions(np.concatenate([taken, codes])))
    if match and done.after_uniform:
        codes, matched = _match(coder, points, codes, taken)
        done = replace(done, matched=matched)
    return codes[back], done


def name_all(
    coder: Coder, points: Tensor, order: Rows, tie_break: TieBreak, uniform: UniformConfig | None = None,
    first: Rows | None = None,
) -> tuple[Rows, Repair]:  # fmt: skip
    """``[n, H]`` different codes of all ``points``, or with a counter ``[n, H + 1]``; ``first`` replaces the nearest
    codes of the first pass."""
    codes = encode(coder, points) if first is None else first
    codes, done = separate(coder, points, codes, order, uniform=uniform, match=tie_break == "match")
    if tie_break == "counter":
        ties = count_ties(codes, order)
        codes, done = np.column_stack([codes, ties]), replace(done, counted=int((ties > 0).sum()))
    return codes, done


def name_more(coder: Coder, points: Tensor, taken: Rows, tie_break: TieBreak) -> Rows:
    """Codes of new items around those that are ``taken``, in the order of the new items."""
    codes, order = encode(coder, points), np.arange(len(points))
    if tie_break == "match":
        return separate(coder, points, codes, order, taken=taken)[0]
    return np.column_stack([codes, count_ties(codes, order, taken)])


def _nearest_from(coder: Coder, points: Tensor, codes: Rows, level: int) -> Rows:
    """``codes`` with everything at and below ``level`` chosen anew."""
    parts = []
    for part, chosen in zip(
        torch.split(points, CHUNK), torch.split(torch.from_numpy(codes).to(points.device), CHUNK), strict=True
    ):
        chosen = chosen.clone()
        for below in range(level, len(coder.sizes)):
            chosen[:, below] = coder.distances(part, chosen, below).argmin(1)
        parts.append(chosen)
    return torch.cat(parts).cpu().numpy() if parts else codes


def _make_room(coder: Coder, points: Tensor, codes: Rows, taken: Rows) -> Rows:
    """Move items until no code of any level but the last has more items below it than names. Walks from the top, so
    what is below a code always fits once its own level is done."""
    for level, size in enumerate(coder.sizes[:-1]):
        capacity = prod(coder.sizes[level + 1 :])
        if len(codes) + len(taken) <= capacity:
            continue
        both = np.concatenate([taken, codes])
        parent = groups_of(both[:, :level])
        inhabitants = np.bincount(parent * size + both[:, level], minlength=(int(parent.max()) + 1) * size)
        crowded = inhabitants.reshape(-1, size) > capacity
        movers = np.flatnonzero(crowded[parent[len(taken) :], codes[:, level]])
        for members in _runs(parent[len(taken) + movers]):
            rows = movers[members]
            home = parent[len(taken) + rows[0]]
            staying = inhabitants[home * size : (home + 1) * size] - np.bincount(codes[rows, level], minlength=size)
            costs = _distances(coder, points, codes, rows, level)
            codes = codes.copy()
            chosen = fill(costs, np.maximum(capacity - staying, 0))
            changed = rows[chosen != codes[rows, level]]
            codes[rows, level] = chosen
            codes[changed] = _nearest_from(coder, points[torch.from_numpy(changed)], codes[changed], level + 1)
    return codes


def _spread(coder: Coder, points: Tensor, codes: Rows, uniform: UniformConfig) -> tuple[Rows, int]:
    """Groups that share all codes, spread over the last level, again and again until a round changes nothing or brings
    nothing; and the collisions after the first round."""
    left: list[int] = []
    for _ in range(ROUNDS):
        group = groups_of(codes)
        shared = np.flatnonzero(np.bincount(group)[group] > 1)
        before = codes[shared, -1].copy()
        held = _Held.of(codes, shared, coder.sizes[-1])
        codes = codes.copy()
        for rows in _equal_sized(shared, group):  # [groups, members]
            costs = _distances(coder, points, codes, rows.ravel(), -1).reshape(*rows.shape, -1)
            # No plan tells identical vectors apart; a group of nothing else is left to the matching.
            apart = np.ptp(costs, axis=1).max(1) > 1e-9 * costs.max((1, 2))
            rows, costs = rows[apart], costs[apart]
            if len(rows):
                plan = sinkhorn(torch.from_numpy(costs), uniform)
                plan = plan.masked_fill_(torch.from_numpy(held.by_others(rows, codes))[:, None], -1.0)
                codes[rows, -1] = plan.argmax(-1).numpy()
        left.append(collisions(codes))
        if (codes[shared, -1] == before).all() or (len(left) > 1 and left[-1] >= left[-2]):
            break
    return codes, left[0]


@dataclass(frozen=True, eq=False)
class _Held:
    """Which last-level codes are in use below the same codes: ``table`` ``[parents, V]``; ``parent`` ``[n]`` an item's
    row of it, -1 where nothing below shares a name."""

    table: npt.NDArray[np.bool_]
    parent: Rows

    @classmethod
    def of(cls, codes: Rows, shared: Rows, size: int) -> _Held:
        above = groups_of(codes[:, :-1])
        parents, row = np.unique(above[shared]), np.full(int(above.max(initial=0)) + 1, -1)
        row[parents] = np.arange(len(parents))
        parent, table = row[above], np.zeros((len(parents), size), dtype=bool)
        below = np.flatnonzero(parent >= 0)
        table[parent[below], codes[below, -1]] = True
        return cls(table, parent)

    def by_others(self, rows: Rows, codes: Rows) -> npt.NDArray[np.bool_]:
        """``[groups, V]`` codes that items outside the groups ``rows`` ``[groups, members]`` hold; ``codes`` are those
        that ``of`` saw, for these items."""
        taken = self.table[self.parent[rows[:, 0]]]
        taken[np.arange(len(rows)), codes[rows[:, 0], -1]] = False
        return taken


def _match(coder: Coder, points: Tensor, codes: Rows, taken: Rows) -> tuple[Rows, int]:
    """Items that share all codes with others, matched to the last-level codes free below the codes above."""
    from scipy.optimize import linear_sum_assignment

    n_taken, codes = len(taken), codes.copy()
    both = np.concatenate([taken, codes])
    group, above = groups_of(both), groups_of(both[:, :-1])
    sharing = np.bincount(group)[group] > 1
    movers = np.flatnonzero(sharing[n_taken:])
    settled = np.flatnonzero(~sharing | (np.arange(len(both)) < n_taken))
    settled = settled[np.argsort(above[settled], kind="stable")]
    starts = np.searchsorted(above[settled], np.arange(int(above.max()) + 2))
    for block in _blocks(_runs(above[n_taken + movers])):
        costs = _distances(coder, points, codes, movers[np.concatenate(block)], -1)
        offset = 0
        for members in block:
            rows, parent = movers[members], above[n_taken + movers[members[0]]]
            free = np.ones(coder.sizes[-1], dtype=bool)
            free[both[settled[starts[parent] : starts[parent + 1]], -1]] = False
            places = np.flatnonzero(free)
            _, chosen = linear_sum_assignment(costs[offset : offset + len(rows)][:, places])
            codes[rows, -1] = places[chosen]
            offset += len(rows)
    return codes, len(movers)


def _distances(coder: Coder, points: Tensor, codes: Rows, rows: Rows, level: int) -> npt.NDArray[np.float64]:
    """``[len(rows), V]`` of these items at ``level``, in float64."""
    level = level % len(coder.sizes)
    at = torch.from_numpy(rows)
    # In float32 the differences between near twins would drown in rounding.
    found = coder.distances(points[at].double(), torch.from_numpy(codes[rows]).to(points.device), level)
    return found.cpu().numpy()


def _runs(keys: Rows) -> list[Rows]:
    """Positions of equal keys, a run a key, ascending within."""
    order = np.argsort(keys, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(keys[order])) + 1) if len(keys) else []


def _blocks(runs: list[Rows]) -> Iterator[list[Rows]]:
    """Consecutive runs of at most ``BLOCK`` positions together, or one longer run."""
    block: list[Rows] = []
    for run in runs:
        if block and sum(map(len, block)) + len(run) > BLOCK:
            yield block
            block = []
        block.append(run)
    if block:
        yield block


def _equal_sized(items: Rows, group: Rows) -> Iterator[Rows]:
    """``[groups, members]`` the groups among ``items``, those of one size together."""
    runs = _runs(group[items])
    sizes = np.array([len(run) for run in runs])
    for size in np.unique(sizes):
        of_size = items[np.stack([runs[at] for at in np.flatnonzero(sizes == size)])]
        step = max(1, BLOCK // (16 * int(size)))
        yield from (of_size[start : start + step] for start in range(0, len(of_size), step))


def count_ties(codes: Rows, order: Rows, taken: Rows | None = None) -> Rows:
    """``[n]`` the tie-break of TIGER: 0, 1, 2, … among equal rows in the given order; rows that are ``taken``
    ``[N, H + 1]`` (with their tie-breaks) go on counting after them."""
    group = groups_of(codes if taken is None else np.concatenate([taken[:, :-1], codes]))
    first = np.zeros(int(group.max(initial=0)) + 1, dtype=np.int64)
    if taken is not None:
        np.maximum.at(first, group[: len(taken)], taken[:, -1] + 1)
        group = group[len(taken) :]
    ties = np.empty(len(codes), dtype=np.int64)
    for_order = group[order]
    within = np.argsort(for_order, kind="stable")
    rank = np.arange(len(codes)) - np.searchsorted(for_order[within], for_order[within])
    ties[order[within]] = rank
    return ties + first[group]
