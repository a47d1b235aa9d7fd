"""Solved examples for prompts: what people of the train part chose next, among others. The train part and no more.

Each is one user's last training event with what stood before it, between items the user never met, drawn as often as
people meet them. Shapes: P examples, C candidates, T events of a history, N items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from palate.core.dataset import Dataset
from palate.core.ragged import IntArray, Ragged

AT_ONCE = 4_000_000
"""Entries of a table of examples and items."""


@dataclass(frozen=True, eq=False)
class SolvedExamples:
    """histories  P item rows, oldest first, none empty
    offered    ``[P, C]`` item rows as they are shown, -1 = no more
    place      ``[P]`` where among them the chosen one stands; every place is as likely
    users      ``[P]`` whose they are
    """

    histories: Ragged
    offered: IntArray
    place: IntArray
    users: IntArray

    @classmethod
    def drawn(cls, train: Dataset, *, n: int, length: int, n_candidates: int, seed: int) -> Self:
        """Up to ``n`` of users with two events; the same for the same train part and ``seed``."""
        rng = np.random.default_rng([seed, 0x5E])
        whole = train.histories
        users = rng.permutation(np.flatnonzero(whole.lengths > 1))[:n]
        targets = train.item_rows[whole.stops[users] - 1].astype(np.int64)
        others = _unmet(whole[users], train.item_counts, n_candidates - 1, rng)
        offered = np.concatenate([targets[:, None], others], axis=1)
        order = np.argsort(np.where(offered >= 0, rng.random(offered.shape), np.inf), axis=1)
        offered, place = np.take_along_axis(offered, order, axis=1), (order == 0).argmax(1)
        before = Ragged(train.item_rows, np.maximum(whole.starts[users], whole.stops[users] - 1 - length),
                        whole.stops[users] - 1)  # fmt: skip
        return cls(Ragged.of([row.tolist() for row in before]), offered, place, users)

    def __len__(self) -> int:
        return len(self.users)

    def chosen(self, history: IntArray, user: int, n: int, *, nearest: bool) -> list[int]:
        """``n`` examples for somebody with this history, none of their own: those whose histories share the largest
        part of their items with it, the nearest last; or the first of the pool, which was drawn."""
        shared = np.isin(self.histories.flat(), history)
        hits = np.bincount(self.histories.row_numbers()[shared], minlength=len(self))
        near = hits / np.sqrt(np.maximum(self.histories.lengths, 1)) if nearest else np.zeros(len(self))
        order = np.argsort(-near, kind="stable")
        return order[self.users[order] != user][:n][::-1].tolist()

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """As plain arrays, for saving."""
        return {
            "histories": self.histories.flat(), "lengths": self.histories.lengths, "offered": self.offered,
            "place": self.place, "users": self.users,
        }  # fmt: skip

    @classmethod
    def of_arrays(cls, arrays: dict[str, npt.NDArray[Any]]) -> Self:
        histories = Ragged.from_lengths(arrays["histories"], arrays["lengths"])
        return cls(histories, arrays["offered"], arrays["place"], arrays["users"])


def _unmet(met: Ragged, counts: IntArray, n: int, rng: np.random.Generator) -> IntArray:
    """``[P, n]`` items that nobody of these rows met, no two of a row alike, one after another as often as ``counts``
    ``[N]`` say; -1 where there are no more.

    Each item waits for an exponential time of that rate, and the first ``n`` to come are those of drawing one by one
    (Efraimidis and Spirakis 2006). A table of all items for a few examples, once a fit.
    """
    n_items, found = len(counts), np.full((len(met), n), -1, dtype=np.int64)
    width = min(n, n_items)
    at_once = max(1, AT_ONCE // max(n_items, 1))
    for start in range(0, len(met) if width else 0, at_once):
        some = met[start : start + at_once]
        with np.errstate(divide="ignore"):
            waits = rng.exponential(size=(len(some), n_items)) / counts
        waits[some.row_numbers(), some.flat()] = np.inf
        first = np.argpartition(waits, width - 1, axis=1)[:, :width]
        there = np.isfinite(np.take_along_axis(waits, first, axis=1))
        found[start : start + at_once, :width] = np.where(there, first, -1)
    return found
