"""Item-kNN: an item is scored by how similar it is to what the history holds; similar = met by the same people.

Sarwar, Karypis, Konstan and Riedl, "Item-Based Collaborative Filtering Recommendation Algorithms", WWW 2001; cosine
over binary columns as in Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms", TOIS 2004, with the
shrinkage that Ferrari Dacrema, Cremonesi and Jannach, RecSys 2019, find a well-tuned item-kNN needs::

    similarity[i, j] = |users of i and j| / (sqrt(|users of i| * |users of j|) + shrinkage)
    score[request, i] = sum of similarity[j, i] over the items j of the history that are among the neighbours of i

Shapes: B requests, N items; ``similarity`` is sparse ``[N, N]``, column i holds the neighbours of item i.

Where we depart, and why:
- Items that no neighbour speaks for follow after all others, most popular first, so that a newcomer with an empty
  history still gets an answer. An item that no training event shows scores NaN.
- ``half_life_events`` lets the newest events of a history count most (``recent()``); the paper weighs all alike, and
  so does the default.
- Similarities are computed a block of items at a time; nothing dense of N x N is ever held.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field

from palate.core import store
from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.errors import TrainingError
from palate.core.protocols import FloatArray, Judge, ScoresAll
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.space import Range, SearchSpace
from palate.data.matrices import BLOCK_BYTES, in_blocks, request_items, user_items

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class ItemKNNConfig(Config):
    neighbours: int = Field(100, ge=1)
    """Kept for each item."""
    shrinkage: float = Field(5.0, ge=0)
    """Lowers the similarity of items that few people met."""
    half_life_events: float | None = Field(None, gt=0)
    """An event of the history counts half when so many came after it; None counts all alike."""


SPACE: SearchSpace = {
    "neighbours": Range(20, 500, log=True, whole=True),
    "shrinkage": Range(0.1, 200, log=True),
    "half_life_events": Range(1, 100, log=True, optional=True),
}
"""What ``--tune`` searches."""


class ItemKNN(ScoresAll):
    """``similarity`` is None until fitted or loaded; ``counts`` ``[N]`` users of each item."""

    config_type = ItemKNNConfig

    def __init__(self, config: ItemKNNConfig | None = None) -> None:
        self.config = config or ItemKNNConfig()
        self.similarity: csr_array | None = None
        self.counts = np.zeros(0, dtype=np.float32)
        self.fitted_on = ""

    def fit(self, train: Dataset, run: Run, judge: Judge | None = None) -> Self:
        from scipy.sparse import vstack

        users_of_items = user_items(train).T.tocsr()
        self.counts = np.diff(users_of_items.indptr).astype(np.float32)
        rows = max(1, BLOCK_BYTES // (4 * max(train.n_items, 1)))
        blocks = [
            self._neighbours(users_of_items, slice(start, min(start + rows, train.n_items)))
            for start in range(0, train.n_items, rows)
        ]
        self.similarity, self.fitted_on = vstack(blocks, format="csr").T.tocsr(), train.fingerprint
        return self

    def _neighbours(self, users_of_items: csr_array, rows: slice) -> Any:
        """The nearest items of some items, sparse ``[b, N]``."""
        from scipy.sparse import csr_array

        together = (users_of_items[rows] @ users_of_items.T).toarray()
        spread = np.sqrt(self.counts[rows, None] * self.counts) + np.float32(self.config.shrinkage)
        similar = np.divide(together, spread, out=np.zeros_like(together), where=together > 0)
        similar[np.arange(len(similar)), np.arange(rows.start, rows.stop)] = 0
        return csr_array(largest(similar, self.config.neighbours))

    def score_blocks(self, requests: Requests) -> Iterator[FloatArray]:
        if self.similarity is None:
            raise TrainingError("ItemKNN was not fitted yet: call fit or load first")
        unspoken = np.where(self.counts > 0, self.counts / max(self.counts.max(initial=0), 1) - 1, np.nan)
        for part in in_blocks(requests, len(self.counts)):
            met = request_items(part, len(self.counts), half_life_events=self.config.half_life_events)
            scores = (met @ self.similarity).toarray()
            yield np.where(scores > 0, scores, unspoken.astype(np.float32))

    def save(self, folder: Path) -> None:
        if self.similarity is None:
            raise TrainingError("ItemKNN was not fitted yet: there is nothing to save")
        kept = self.similarity
        arrays = {"data": kept.data, "indices": kept.indices, "indptr": kept.indptr, "counts": self.counts}
        store.save(folder, self, config=self.config, arrays=arrays, fitted_on=self.fitted_on)

    @classmethod
    def load(cls, folder: Path) -> Self:
        from scipy.sparse import csr_array

        stored = store.open_folder(folder)
        system = stored.begun(cls)
        arrays = stored.arrays()
        system.counts, system.fitted_on = arrays["counts"], stored.fitted_on
        shape = (len(system.counts), len(system.counts))
        system.similarity = csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
        return system


def recent() -> ItemKNNConfig:
    """What the last few events are similar to: item-kNN as a session recommender."""
    return ItemKNNConfig(neighbours=200, shrinkage=0.0, half_life_events=3.0)


def ml_100k() -> ItemKNNConfig:
    """Best NDCG@10 on the validation events of MovieLens-100K."""
    return ItemKNNConfig(neighbours=10, shrinkage=0.0)


def largest(values: FloatArray, n: int) -> FloatArray:
    """``[b, N]`` with all but the n largest of each row set to zero; of equal values the lower columns stay."""
    if n >= values.shape[1]:
        return values
    least = np.partition(values, -n, axis=1)[:, -n, None]
    above = values > least
    level = values == least
    room = n - above.sum(axis=1, keepdims=True)
    return np.where(above | (level & (np.cumsum(level, axis=1) <= room)), values, np.float32(0))
