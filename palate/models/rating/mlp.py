"""A multi-layer perceptron over who asks and what is asked about: two id embeddings, hidden layers, one number.

A baseline of Kang et al. (arXiv 2305.06474), in the shape of He et al. 2017 (arXiv 1708.05031, the MLP part), with the
mean squared error on the rating. Shapes: b questions, U users, N items, D width.

Where we depart, and why: a linear path around the hidden layers carries the users' and items' leanings, which plain
layers learn slowly; ids that were never taught are zero vectors. Tuned like every baseline: ``--tune`` searches width,
dropout and weight decay.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from palate.core.config import Config
from palate.core.space import Choice, Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.ratings import RatingBatch
from palate.training.ratings import RatingNetwork, RatingSystem, table


class RatingMLPConfig(Config):
    width: int = Field(32, ge=1)
    hidden: tuple[int, ...] = Field((64, 32), min_length=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    batch_size: int = Field(512, ge=1)
    training: TrainingConfig = TrainingConfig(epochs=100, learning_rate=1e-3, weight_decay=0.1, patience=5)


SPACE: SearchSpace = {
    "width": Choice((16, 32, 64, 128)),
    "dropout": Range(0.0, 0.6),
    "training.weight_decay": Range(1e-3, 1.0, log=True),
}
"""What ``--tune`` searches."""


class Network(RatingNetwork):
    """``[b]`` questions → ``[b]`` above the mean of all."""

    def __init__(self, config: RatingMLPConfig, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.users, self.items = table(n_users, config.width), table(n_items, config.width)
        sizes = (2 * config.width, *config.hidden)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(config.dropout)]
        self.hidden = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))
        self.around = nn.Linear(2 * config.width, 1, bias=False)

    def forward(self, batch: RatingBatch) -> Tensor:
        users, items = self.rows(batch.users, self.known_users), self.rows(batch.items, self.known_items)
        both = torch.cat([self.users(users), self.items(items)], 1)
        return (self.hidden(both) + self.around(both))[:, 0]


class RatingMLP(RatingSystem[RatingMLPConfig, Network]):
    """The predictor. ``network`` is None until fitted or loaded."""

    config_type, network_type = RatingMLPConfig, Network


def tiny() -> RatingMLPConfig:
    """Small tables for a small log."""
    return RatingMLPConfig(
        width=8, hidden=(16,), batch_size=128,
        training=TrainingConfig(epochs=60, learning_rate=5e-3, weight_decay=0.01, patience=20),
    )  # fmt: skip
