"""Matrix factorisation of ratings: the mean, the user's and the item's leaning, and how well the two fit.

``r = mu + b_u + b_i + p_u . q_i`` (Koren, Bell & Volinsky 2009, "Matrix factorization techniques for recommender
systems", eq. 4), mean squared error with L2 on what an event touches (their eq. 5). A baseline of Kang et al.
(arXiv 2305.06474). Shapes: b questions, U users, N items, D width.

Where we depart, and why: Adam in batches instead of one event at a time, which a tensor library does faster; the
validation error stops it. A user or item without ratings has no leaning and no factors, so the rest of the sum answers.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from palate.core.config import Config
from palate.core.space import Choice, Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.ratings import RatingBatch
from palate.training.ratings import RatingNetwork, RatingSystem, table


class RatingMFConfig(Config):
    width: int = Field(32, ge=1)
    reg: float = Field(0.03, ge=0)
    """Of factors and leanings, for each event that touches them."""
    batch_size: int = Field(512, ge=1)
    training: TrainingConfig = TrainingConfig(epochs=100, learning_rate=2e-3, patience=3)


SPACE: SearchSpace = {
    "width": Choice((16, 32, 64, 128)),
    "reg": Range(3e-3, 0.3, log=True),
    "training.learning_rate": Range(5e-4, 1e-2, log=True),
}
"""What ``--tune`` searches."""


class Network(RatingNetwork):
    """``[b]`` questions → ``[b]`` above the mean of all."""

    def __init__(self, config: RatingMFConfig, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.users, self.items = table(n_users, config.width), table(n_items, config.width)
        self.user_leaning, self.item_leaning = table(n_users, 1, 0.0), table(n_items, 1, 0.0)

    def parts(self, batch: RatingBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        users, items = self.rows(batch.users, self.known_users), self.rows(batch.items, self.known_items)
        return self.users(users), self.items(items), self.user_leaning(users)[:, 0], self.item_leaning(items)[:, 0]

    def forward(self, batch: RatingBatch) -> Tensor:
        p, q, user, item = self.parts(batch)
        return user + item + (p * q).sum(1)


class RatingMF(RatingSystem[RatingMFConfig, Network]):
    """The predictor. ``network`` is None until fitted or loaded."""

    config_type, network_type = RatingMFConfig, Network

    def penalty(self, network: Network, batch: RatingBatch) -> Tensor:
        p, q, user, item = network.parts(batch)
        return self.config.reg * (torch.cat([p, q], 1).square().sum(1) + user.square() + item.square()).mean()


def tiny() -> RatingMFConfig:
    """Small tables for a small log."""
    return RatingMFConfig(width=8, batch_size=128, training=TrainingConfig(epochs=60, learning_rate=5e-3, patience=3))
