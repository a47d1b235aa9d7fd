"""The shell of networks that predict ratings: mean squared error on raw ratings, the mean taken out and added back.

Users and items without a rating in the train part share one row of zeros, so nothing is read from weights that were
drawn and never taught. Shapes: b questions, U users, N items.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.ratings import Predictions, RatingRequests
from palate.core.run import Run
from palate.data.ratings import RatingBatch, RatingBatches, ratings_of
from palate.training.shell import GradientSystem, Lesson

AT_ONCE = 4096
"""Questions that a network reads in one batch."""


class RatingNetwork(nn.Module, ABC):
    """What ``RatingSystem`` asks of a network. ``scale`` holds mean, lowest and highest rating; ``known_users``
    ``[U]`` and ``known_items`` ``[N]`` who was taught."""

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.scale: Tensor
        self.known_users: Tensor
        self.known_items: Tensor
        self.register_buffer("scale", torch.zeros(3))
        self.register_buffer("known_users", torch.zeros(n_users, dtype=torch.bool))
        self.register_buffer("known_items", torch.zeros(n_items, dtype=torch.bool))

    def learn_scale(self, train: Dataset) -> None:
        """Mean and range of the ratings, and who has any."""
        ratings = ratings_of(train) if train.n_interactions else np.zeros(0, np.float32)
        rated = ~np.isnan(ratings)
        if rated.any():
            taught = ratings[rated]
            self.scale.copy_(torch.tensor([float(taught.mean()), float(taught.min()), float(taught.max())]))
        for flags, rows in ((self.known_users, train.user_rows), (self.known_items, train.item_rows)):
            flags.zero_()
            flags[torch.from_numpy(rows[rated].astype(np.int64))] = True

    def rows(self, rows: Tensor, known: Tensor) -> Tensor:
        """Rows of a table with one more row, the last, for everybody who was not taught."""
        n = len(known)
        if not n:
            return torch.zeros_like(rows)
        safe = rows.clamp(0, n - 1)
        return torch.where((rows == safe) & known[safe], safe, n)

    @abstractmethod
    def forward(self, batch: RatingBatch) -> Tensor:
        """``[b]`` what is above the mean of all ratings."""


def table(n: int, width: int, spread: float = 0.1) -> nn.Embedding:
    """``[n + 1, width]`` drawn rows; the last is zero and stays so."""
    rows = nn.Embedding(n + 1, width, padding_idx=n)
    nn.init.normal_(rows.weight, std=spread)
    with torch.no_grad():
        rows.weight[n].zero_()
    return rows


C = TypeVar("C", bound=Config)
N = TypeVar("N", bound=RatingNetwork)


class RatingSystem(GradientSystem[C, N]):
    """Adds to the shell how such networks learn and answer. Settings have ``batch_size``."""

    @property
    def length(self) -> int:
        """Rated events of a history that are read."""
        return getattr(self.config, "length", 0)

    def shape(self, train: Dataset) -> dict[str, Any]:
        return {"n_users": train.n_users, "n_items": train.n_items}

    def penalty(self, network: N, batch: RatingBatch) -> Tensor | float:
        """What is added to the loss."""
        return 0.0

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        network, size = self.fitted(), self.config.batch_size  # type: ignore[attr-defined]
        network.learn_scale(train)
        batches = RatingBatches(train, length=self.length, batch_size=size, seed=run.seed)

        def loss(batch: RatingBatch) -> Tensor:
            batch = batch.to(run.device)
            assert batch.stars is not None
            return F.mse_loss(network(batch), batch.stars - network.scale[0]) + self.penalty(network, batch)

        return Lesson(batches, loss)

    def predict(self, requests: RatingRequests) -> Predictions:
        network = self.fitted()
        device = network.scale.device
        parts = []
        with torch.no_grad():
            for start in range(0, len(requests), AT_ONCE):
                batch = RatingBatch.of(requests[slice(start, start + AT_ONCE)], self.length).to(device)
                stars = (network(batch) + network.scale[0]).clamp(network.scale[1], network.scale[2])
                parts.append(stars.float().cpu().numpy())
        return Predictions.of(np.concatenate(parts) if parts else np.zeros(0, np.float32))
