"""Events → batches of (user, item) pairs, and the items that a user never met, drawn without trial and error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palate.core.dataset import Dataset
from palate.core.ragged import IntArray


@dataclass(frozen=True, eq=False)
class PairBatch:
    """b events: ``users`` and ``items`` are ``[b]`` int64 rows."""

    users: Tensor
    items: Tensor

    def __len__(self) -> int:
        return len(self.users)

    def to(self, device: torch.device | str) -> PairBatch:
        return PairBatch(self.users.to(device, non_blocking=True), self.items.to(device, non_blocking=True))


class PairBatches:
    """Every event once an epoch, shuffled; a pure function of (seed, epoch), so a run can resume at any step.

    Events of a user who met the whole catalogue are passed over: there is nothing to prefer them to.
    """

    def __init__(self, train: Dataset, *, batch_size: int, seed: int) -> None:
        users, items = train.user_rows.astype(np.int64), train.item_rows.astype(np.int64)
        met = train.histories.distinct(train.n_items).lengths
        compares = met[users] < train.n_items
        self.users, self.items = torch.from_numpy(users[compares]), torch.from_numpy(items[compares])
        self.batch_size = batch_size
        self.seed = seed

    def __len__(self) -> int:
        return -(-len(self.users) // self.batch_size)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[PairBatch]:
        """The batches of one epoch without the first ``skip``, in an order that depends on (seed, epoch) alone."""
        order = torch.from_numpy(np.random.default_rng((self.seed, epoch)).permutation(len(self.users)))
        for start in range(skip * self.batch_size, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            yield PairBatch(self.users[rows], self.items[rows])


class Unmet:
    """Uniform draws from the items that a user never met, exact and in one look-up.

    A user who met the distinct items h_0 < h_1 < … of N has N - n others. The r-th of them is r + #{j : h_j - j <= r},
    and as h_j - j never falls, one binary search over (user, h_j - j) counts it for a whole batch.
    """

    def __init__(self, train: Dataset, device: torch.device | str = "cpu") -> None:
        met = train.histories.distinct(train.n_items)
        places = np.arange(len(met.values), dtype=np.int64) - np.repeat(met.starts, met.lengths)
        keys = met.row_numbers() * train.n_items + met.values - places
        self.n_items = train.n_items
        self.keys = torch.from_numpy(keys).to(device)
        self.starts = torch.from_numpy(np.ascontiguousarray(met.starts, dtype=np.int64)).to(device)
        self.room = torch.from_numpy(train.n_items - met.lengths.astype(np.int64)).to(device)

    def draw(self, users: Tensor, n: int) -> Tensor:
        """``[b, n]`` item rows, each on its own, from torch's present random state; ``users`` is ``[b]``.

        No user may have met the whole catalogue (``PairBatches`` passes over those).
        """
        room = self.room[users, None]
        return self._nth(users, (torch.rand((len(users), n), dtype=torch.float64, device=users.device) * room).long())

    def distinct(self, users: IntArray, n: int, rng: np.random.Generator) -> IntArray:
        """``[b, n]`` item rows, no two of a row alike and every choice of them as likely; -1 behind the last of a user
        who has fewer. Their order is not drawn.

        Floyd's way (Bentley and Floyd 1987): the j-th is drawn from the first ``room - n + j``, and where it is there
        already, the last of these stands in. ``n`` steps, whatever the catalogue.
        """
        asked = torch.from_numpy(users).to(self.room.device)
        room = self.room[asked].cpu().numpy()
        counts = np.minimum(n, room)
        nth = np.full((len(users), n), -1, dtype=np.int64)
        for place in range(n):
            last = np.maximum(room - counts + place, 0)
            some = np.minimum((rng.random(len(users)) * (last + 1)).astype(np.int64), last)
            nth[:, place] = np.where((nth[:, :place] == some[:, None]).any(1), last, some)
        there = np.arange(n) < counts[:, None]
        found = self._nth(asked, torch.from_numpy(np.where(there, nth, 0)).to(asked.device)).cpu().numpy()
        return np.where(there, found, -1)

    def _nth(self, users: Tensor, nth: Tensor) -> Tensor:
        below = torch.searchsorted(self.keys, users[:, None] * self.n_items + nth, right=True)
        return nth + below - self.starts[users, None]
