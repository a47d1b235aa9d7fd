"""How good names are, seen from outside: how evenly tokens are used, and whether names that begin alike mean alike.

It reads any names and any vectors of the same items. Shapes: N items, K places, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from palate.core.codes import Codes
from palate.core.errors import DataError
from palate.core.protocols import FloatArray
from palate.core.ragged import IntArray

ASKED = 1000
"""Items whose neighbours are looked at."""
NEIGHBOURS = 10
CHUNK = 256
"""Items compared with all others at once."""


@dataclass(frozen=True)
class Place:
    """One place of the names.

    items    whose name reaches it
    used     different tokens there, of ``known`` ones that a code book has (0 = no code book: as many as are used)
    entropy  bits of the tokens' distribution; at most log2(used)
    balance  entropy over its maximum log2(known or used): 1 = every token equally often
    largest  items that share the most frequent token
    """

    items: int
    used: int
    known: int
    entropy: float
    balance: float
    largest: int


@dataclass(frozen=True)
class Agreement:
    """Neighbours by name against neighbours by vector, over a sample of items.

    first         share of an item's nearest neighbours by vector that begin with the same token
    first_chance  the same for any two items
    overlap       share of the nearest by vector that are also nearest by name (names alike count in part)
    chance        the same for names that mean nothing
    """

    first: float
    first_chance: float
    overlap: float
    chance: float


@dataclass(frozen=True)
class CodeHealth:
    """Collisions are items minus different names: of the nearest codes, and of the first pass, which is the nearest
    codes or, with uniform mapping, one round of that; None where nothing was repaired. ``twins`` of them no quantiser
    could have avoided, because vectors are the same. ``notes`` are what the fit has to say of itself."""

    items: int
    places: tuple[Place, ...]
    collisions_nearest: int | None
    collisions_first: int | None
    twins: int
    collisions: int
    agreement: Agreement | None
    notes: tuple[str, ...] = ()

    def table(self) -> str:
        """The report a person reads."""
        lines = ["place   items    used      bits  balance  largest"]
        for at, place in enumerate(self.places, start=1):
            used = f"{place.used}/{place.known}" if place.known else f"{place.used}"
            lines.append(
                f"{at:>5} {place.items:>7,} {used:>7}  {place.entropy:>8.2f} {place.balance:>8.2f} {place.largest:>8,}"
            )
        before = (
            ""
            if self.collisions_first is None
            else f"{self.collisions_nearest:,} by nearest codes, {self.collisions_first:,} after the first pass "
            f"({self.twins:,} twins), "
        )
        lines.append(f"collisions: {before}{self.collisions:,} now, of {self.items:,} items")
        if self.agreement is not None:
            a = self.agreement
            lines.append(
                f"nearest by vector that begin alike: {a.first:.3f} (any two items: {a.first_chance:.3f}); "
                f"that are nearest by name: {a.overlap:.3f} (chance: {a.chance:.4f})"
            )
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def health(
    codes: Codes, vectors: FloatArray | None = None, facts: Mapping[str, Any] | None = None, *,
    ordered: bool = True, seed: int = 0,
) -> CodeHealth:  # fmt: skip
    """The health of ``codes``; with ``vectors`` ``[N, D]`` also their agreement.

    ``facts`` of a tokenizer say what was before the repair and how large the code books are. Names are alike by the
    tokens they share from the first on, or without ``ordered`` (product quantisation) by places that are equal.
    """
    facts = facts or {}
    repair, sizes = facts.get("repair"), facts.get("places", ())
    places = []
    for at, column in enumerate(codes.tokens.T):
        places.append(_place(column[column >= 0], sizes[at] if at < len(sizes) else 0))
    different = len(np.unique(codes.tokens, axis=0))
    agreement = None if vectors is None else agree(codes.tokens, vectors, ordered=ordered, seed=seed)
    nearest, first = (None if repair is None else int(repair[key]) for key in ("nearest", "first_pass"))
    twins = int(facts.get("twins", 0))
    left, notes = codes.n_items - different, tuple(facts.get("notes", ()))
    return CodeHealth(codes.n_items, tuple(places), nearest, first, twins, left, agreement, notes)


def _place(tokens: IntArray, known: int) -> Place:
    counts = np.unique(tokens, return_counts=True)[1]
    shares = counts / max(counts.sum(), 1)
    entropy = max(0.0, float(-(shares * np.log2(shares)).sum())) if len(counts) else 0.0
    # Fewer items than codes cannot use them all.
    reachable = min(known or len(counts), len(tokens))
    balance = entropy / np.log2(reachable) if reachable > 1 else 1.0
    return Place(len(tokens), len(counts), known, entropy, float(balance), int(counts.max(initial=0)))


def agree(tokens: IntArray, vectors: FloatArray, *, ordered: bool = True, seed: int = 0) -> Agreement:
    """Agreement of names ``[N, K]`` with ``vectors`` ``[N, D]`` by cosine; at most ``ASKED`` items are asked."""
    n = len(tokens)
    if len(vectors) != n:
        raise DataError(f"{n:,} names and {len(vectors):,} vectors are not of the same items")
    k = min(NEIGHBOURS, n - 1)
    if k < 1:
        raise DataError("one item has no neighbours")
    asked = np.sort(np.random.default_rng(seed).permutation(n)[:ASKED])
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    same_first = overlap = 0.0
    for rows in np.array_split(asked, -(-len(asked) // CHUNK)):
        near = unit[rows] @ unit.T
        near[np.arange(len(rows)), rows] = -np.inf
        best = np.argpartition(-near, k - 1, axis=1)[:, :k]
        alike = _alike(tokens[rows], tokens, ordered)
        alike[np.arange(len(rows)), rows] = -1
        same_first += float((tokens[best, 0] == tokens[rows, :1]).mean(1).sum())
        overlap += float(np.take_along_axis(_chosen(alike, k), best, 1).sum()) / k
    counts = np.unique(tokens[:, 0], return_counts=True)[1]
    pairs = float((counts * (counts - 1)).sum()) / (n * (n - 1))
    return Agreement(same_first / len(asked), pairs, overlap / len(asked), k / (n - 1))


def _alike(asked: IntArray, tokens: IntArray, ordered: bool) -> npt.NDArray[np.int16]:
    """``[a, N]`` tokens in common; -1 after the end of a name is no token."""
    total = np.zeros((len(asked), len(tokens)), dtype=np.int16)
    still = np.ones_like(total, dtype=bool)
    for mine, theirs in zip(asked.T, tokens.T, strict=True):
        same = (mine[:, None] == theirs) & (mine[:, None] >= 0)
        still = still & same if ordered else same
        total += still
    return total


def _chosen(alike: npt.NDArray[np.int16], k: int) -> FloatArray:
    """``[a, N]`` the chance of each item to be among the ``k`` most alike, where those equally alike share places."""
    level = -np.partition(-alike, k - 1, axis=1)[:, k - 1 : k]
    above, at = alike > level, alike == level
    room = (k - above.sum(1, keepdims=True)) / at.sum(1, keepdims=True)
    return np.where(above, 1.0, np.where(at, room, 0.0)).astype(np.float32)
