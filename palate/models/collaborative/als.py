"""ALS: matrix factorisation where every unseen pair is a weak "no" and every event a strong "yes".

Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008. With r the number of
times user u met item i, preference p = [r > 0] and confidence c = 1 + α r, minimise over x and y::

    sum over all u, i of c (p - x_u · y_i)²  +  sum over u of λ_u |x_u|²  +  sum over i of λ_i |y_i|²

by solving for all users, then for all items, and again (equation 4); λ_u = reg * (events of u + N / α)^reg_exponent,
likewise for items with U in place of N. Exponent 0 is the paper; the default is 1, so that one reg suits small and
large logs: Rendle, Krichene, Zhang and Koren, "Revisiting the Performance of iALS on Item Recommendation Benchmarks",
RecSys 2022 (arXiv 2110.14037), show what it gains.
Rows of similar length are solved together, many D x D systems at a time, never one by one in Python.
Shapes: B requests, N items, U users, D width, T longest history of a group.

Where we depart, and why: users are not stored. A request's vector is solved from its history and the item vectors,
the same equation, so unknown users and new events need no refit. An empty history is answered by popularity; an item
that no training event shows scores NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from palate.core import store
from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.errors import TrainingError
from palate.core.protocols import FloatArray, Judge, ScoresAll
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.space import Choice, Range, SearchSpace
from palate.core.version import Version
from palate.data.matrices import BLOCK_BYTES, in_blocks, request_items, user_items

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Reals = npt.NDArray[np.floating[Any]]


class ALSConfig(Config):
    width: int = Field(64, ge=1)
    """D, numbers a user and an item."""
    alpha: float = Field(3.0, gt=0)
    """How much surer one event makes us."""
    reg: float = Field(0.02, gt=0)
    """λ, before scaling."""
    reg_exponent: float = Field(1.0, ge=0, le=1)
    """How strongly λ grows with the events of a row; 0 = one λ for all, as in the paper."""
    iterations: int = Field(15, ge=1)
    """Each solves all users once and all items once."""
    half_life_events: float | None = Field(None, gt=0)
    """When asked, an event counts half when so many came after it; None counts all alike."""


SPACE: SearchSpace = {
    "width": Choice((16, 32, 64, 128)),
    "alpha": Range(0.5, 100, log=True),
    "reg": Range(1e-3, 100, log=True),
    "half_life_events": Range(1, 100, log=True, optional=True),
}
"""What ``--tune`` searches."""


class ALS(ScoresAll):
    """``items`` ``[N, D]`` is None until fitted or loaded; ``counts`` ``[N]`` users of each item."""

    config_type = ALSConfig

    def __init__(self, config: ALSConfig | None = None) -> None:
        self.config = config or ALSConfig()
        self.items: FloatArray | None = None
        self.counts = np.zeros(0, dtype=np.float32)
        self.fitted_on = ""
        self._version = Version()

    def fit(self, train: Dataset, run: Run, judge: Judge | None = None) -> Self:
        """Alternate until ``iterations``, the run's budget or its step limit is reached; ``judge`` is not asked."""
        config, started = self.config, monotonic()
        met = user_items(train, counts=True)
        met_by = met.T.tocsr()
        self.counts = np.diff(met_by.indptr).astype(np.float32)
        rng = np.random.default_rng(run.seed)
        items = rng.normal(0, 0.1 / np.sqrt(config.width), (train.n_items, config.width)).astype(np.float32)
        steps = config.iterations if run.max_steps is None else min(config.iterations, run.max_steps)
        run.progress.start("als", steps)
        try:
            for _ in range(steps):
                users = self._solve(met, items)
                items = self._solve(met_by, users).astype(np.float32, copy=False)
                run.progress.advance(loss=self.loss(met, users, items))
                if run.budget_seconds is not None and monotonic() - started > run.budget_seconds:
                    break
        finally:
            run.progress.finish()
        self.items, self.fitted_on = items, train.fingerprint
        return self

    def _solve(self, rows: csr_array, others: Reals) -> Reals:
        """``[R, D]`` the best vectors of the rows ``[R, M]`` of counts, given those of the other side ``[M, D]``."""
        return solve(rows, others, self.config.alpha, self._regs(rows))

    def _regs(self, rows: csr_array) -> np.ndarray:
        """``[R]`` λ of each row, from the events it has and the M it could have."""
        weight = np.diff(rows.indptr) + rows.shape[1] / self.config.alpha
        return self.config.reg * weight**self.config.reg_exponent

    def loss(self, met: csr_array, users: Reals, items: Reals) -> float:
        """The paper's objective, equation 3, without ever visiting an unseen pair."""
        seen = met.tocoo()
        said = np.einsum("ed,ed->e", users[seen.row], items[seen.col])
        confidence = 1 + self.config.alpha * seen.data
        fit = np.sum(confidence * (1 - said) ** 2 - said**2) + np.sum((users.T @ users) * (items.T @ items))
        size = self._regs(met) @ np.square(users).sum(1) + self._regs(met.T.tocsr()) @ np.square(items).sum(1)
        return float(fit + size)

    def fitted(self) -> FloatArray:
        """The item vectors, else one clear sentence."""
        if self.items is None:
            raise TrainingError("ALS was not fitted yet: call fit or load first")
        return self.items

    def score_blocks(self, requests: Requests) -> Iterator[FloatArray]:
        items = self.fitted()
        popularity = self.counts / max(self.counts.max(initial=0), 1)
        precise = items.astype(np.float64)  # so that a vector hardly depends on the batch it is solved in
        for part in in_blocks(requests, len(items)):
            users, silent = self._users(part, precise)
            scores = users @ items.T
            scores[silent] = popularity
            scores[:, self.counts == 0] = np.nan
            yield scores

    def _users(self, requests: Requests, precise: Reals) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """``[b, D]`` the vector of each request, and whose history is empty."""
        met = request_items(requests, len(precise), counts=True, half_life_events=self.config.half_life_events)
        return self._solve(met, precise).astype(np.float32), np.diff(met.indptr) == 0

    def user_vectors(self, requests: Requests) -> FloatArray:
        """``[B, D]``; NaN for an empty history."""
        items = self.fitted()
        precise, found = items.astype(np.float64), [np.zeros((0, items.shape[1]), dtype=np.float32)]
        for part in in_blocks(requests, len(items)):
            users, silent = self._users(part, precise)
            users[silent] = np.nan
            found.append(users)
        return np.concatenate(found)

    def item_vectors(self) -> FloatArray:
        """``[N, D]``; NaN for an item that no training event shows."""
        return np.where(self.counts[:, None] > 0, self.fitted(), np.float32(np.nan))

    @property
    def vectors_version(self) -> str:
        """Of the item vectors, from which those of users follow."""
        items = self.fitted()
        return self._version.of((items, self.counts), lambda: (items, self.counts))

    def save(self, folder: Path) -> None:
        if self.items is None:
            raise TrainingError("ALS was not fitted yet: there is nothing to save")
        arrays = {"items": self.items, "counts": self.counts}
        store.save(folder, self, config=self.config, arrays=arrays, fitted_on=self.fitted_on)

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        system = stored.begun(cls)
        arrays = stored.arrays()
        system.items, system.counts, system.fitted_on = arrays["items"], arrays["counts"], stored.fitted_on
        return system


def recent() -> ALSConfig:
    """The newest events of a history count most."""
    return ALSConfig(half_life_events=10.0)


def ml_100k() -> ALSConfig:
    """Best NDCG@10 on the validation events of MovieLens-100K, mean of three seeds."""
    return ALSConfig(width=128, alpha=3.0, reg=20.0, reg_exponent=0.0)


def solve(rows: csr_array, others: Reals, alpha: float, regs: np.ndarray) -> Reals:
    """Equation 4 for every row at once: ``(Y'Y + Y'(C - I)Y + λ I) x = Y'C p``.

    rows ``[R, M]`` counts r, others Y ``[M, D]``, regs ``[R]``; returns ``[R, D]``, zeros where a row is empty.
    """
    import torch

    width, lengths = others.shape[1], np.diff(rows.indptr)
    solved = np.zeros((rows.shape[0], width), dtype=others.dtype)
    order = np.argsort(lengths, kind="stable")[np.count_nonzero(lengths == 0) :]
    table, columns, counts = torch.from_numpy(others), rows.indices, rows.data.astype(others.dtype)
    gram, eye = table.T @ table, torch.eye(width, dtype=table.dtype)
    for group in _groups(lengths[order], width * others.itemsize):
        here = order[group]
        places = np.arange(lengths[here[-1]])
        real = places < lengths[here, None]
        entry = np.minimum(rows.indptr[here, None] + places, rows.indptr[here + 1, None] - 1)  # [b, T], padded
        extra = torch.from_numpy(np.where(real, others.dtype.type(alpha) * counts[entry], 0))  # confidence above one
        vectors = table[torch.from_numpy(columns[entry])]  # [b, T, D]
        left = torch.baddbmm(gram, (vectors * extra[:, :, None]).transpose(1, 2), vectors)
        left += torch.from_numpy(regs[here].astype(others.dtype))[:, None, None] * eye
        right = vectors.transpose(1, 2) @ (torch.from_numpy(real) * (1 + extra))[:, :, None]
        solved[here] = torch.linalg.solve(left, right)[:, :, 0].numpy()
    return solved


def _groups(lengths: np.ndarray, bytes_per_entry: int) -> Iterator[slice]:
    """Cut ascending lengths into groups whose padded entries fill at most about 32 MB and waste less than half."""
    start = 0
    while start < len(lengths):
        room = max(1, BLOCK_BYTES // (bytes_per_entry * 2))
        stop = int(np.searchsorted(lengths, 2 * lengths[start], side="right"))
        sizes = lengths[start:stop] * np.arange(1, stop - start + 1)  # padded entries if the group ended here
        stop = start + max(1, int(np.searchsorted(sizes, room, side="right")))
        yield slice(start, stop)
        start = stop
