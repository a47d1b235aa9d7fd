"""EASE: a linear model that predicts each item of a history from the others, solved in closed form.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019 (arXiv 1905.03375). With ``user_items`` X
``[U, N]`` and ridge weight λ, equation 8::

    P = inv(X'X + λ I)        weights[i, j] = -P[i, j] / P[j, j],  0 on the diagonal        scores = history @ weights

The inverse is computed in place by Cholesky in float32, so fitting holds one N x N array of 4 N² bytes (0.4 GB for
10,000 items, 1.6 GB for 20,000) and a strip beside it; larger catalogues are refused. Shapes: B requests, N items.

Where we depart, and why: an empty history is answered by popularity instead of all zeros, and an item that no
training event shows scores NaN, since a zero would place it above items with negative scores. ``half_life_events`` lets
the newest events of a history count most (``recent()``); the paper weighs all alike, and so does the default.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

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


class EASEConfig(Config):
    reg: float = Field(300.0, gt=0)
    """λ, in events: the more data, the larger the best value."""
    half_life_events: float | None = Field(None, gt=0)
    """An event of the history counts half when so many came after it; None counts all alike."""
    most_items: int = Field(20_000, ge=1)
    """A larger catalogue is refused: memory grows with its square."""


SPACE: SearchSpace = {
    "reg": Range(10, 3000, log=True),
    "half_life_events": Range(1, 100, log=True, optional=True),
}
"""What ``--tune`` searches."""


class EASE(ScoresAll):
    """``weights`` ``[N, N]`` is None until fitted or loaded; ``counts`` ``[N]`` users of each item."""

    config_type = EASEConfig

    def __init__(self, config: EASEConfig | None = None) -> None:
        self.config = config or EASEConfig()
        self.weights: FloatArray | None = None
        self.counts = np.zeros(0, dtype=np.float32)
        self.fitted_on = ""

    def fit(self, train: Dataset, run: Run, judge: Judge | None = None) -> Self:
        n_items = train.n_items
        if n_items > self.config.most_items:
            raise TrainingError(
                f"EASE holds a {n_items:,} x {n_items:,} table ({4e-9 * n_items**2:,.1f} GB) and stops at "
                f"{self.config.most_items:,} items: use item-knn, drop rare items, or raise most_items"
            )
        met = user_items(train)
        self.counts = np.bincount(met.indices, minlength=n_items).astype(np.float32)
        self.weights, self.fitted_on = ridge_weights(met, self.config.reg), train.fingerprint
        return self

    def score_blocks(self, requests: Requests) -> Iterator[FloatArray]:
        if self.weights is None:
            raise TrainingError("EASE was not fitted yet: call fit or load first")
        popularity = self.counts / max(self.counts.max(initial=0), 1)
        for part in in_blocks(requests, len(self.counts)):
            met = request_items(part, len(self.counts), half_life_events=self.config.half_life_events)
            scores = met @ self.weights
            scores[np.diff(met.indptr) == 0] = popularity
            scores[:, self.counts == 0] = np.nan
            yield scores

    def save(self, folder: Path) -> None:
        if self.weights is None:
            raise TrainingError("EASE was not fitted yet: there is nothing to save")
        arrays = {"weights": self.weights, "counts": self.counts}
        store.save(folder, self, config=self.config, arrays=arrays, fitted_on=self.fitted_on)

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        system = stored.begun(cls)
        arrays = stored.arrays()
        system.weights, system.counts, system.fitted_on = arrays["weights"], arrays["counts"], stored.fitted_on
        return system


def recent() -> EASEConfig:
    """The newest events of a history count most: EASE as a session recommender."""
    return EASEConfig(half_life_events=10.0)


def ml_100k() -> EASEConfig:
    """Best NDCG@10 on the validation events of MovieLens-100K."""
    return EASEConfig(reg=100.0)


def ridge_weights(met: csr_array, reg: float) -> FloatArray:
    """``[N, N]`` item-to-item weights of equation 8 from ``user_items`` ``[U, N]``, diagonal zero."""
    from scipy.linalg.lapack import spotrf, spotri

    n = met.shape[1]
    rows = max(1, BLOCK_BYTES // (4 * n))
    gram = np.empty((n, n), dtype=np.float32, order="F")
    items_users = met.T.tocsr()
    for start in range(0, n, rows):
        gram[:, start : start + rows] = (items_users @ met[:, start : start + rows]).toarray()
    gram[np.diag_indices(n)] += np.float32(reg)
    factor, failed = spotrf(gram, lower=1, overwrite_a=1)
    inverse, failed_too = spotri(factor, lower=1, overwrite_c=1)
    if failed or failed_too:
        raise TrainingError(f"EASE: the item table cannot be inverted with reg = {reg:g}; raise reg")
    for start in range(0, n, rows):  # only the lower triangle is filled: mirror it, a strip at a time
        stop = min(start + rows, n)
        square = np.tril(inverse[start:stop, start:stop])
        inverse[start:stop, start:stop] = square + np.tril(square, -1).T
        inverse[start:stop, stop:] = inverse[stop:, start:stop].T
    weights: FloatArray = inverse.T  # symmetric, and row-major this way round, as the product with a history wants it
    weights /= -np.diag(weights).copy()
    np.fill_diagonal(weights, 0)
    return weights
