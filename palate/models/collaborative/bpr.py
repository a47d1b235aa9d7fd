"""BPR-MF: a vector for each user and item, learnt so that what a user met outranks what the user did not meet.

Rendle, Freudenthaler, Gantner and Schmidt-Thieme, "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI
2009 (arXiv 1205.2618). With score ``x_ui = p_u · q_i + b_i``, each event (u, i) is compared with an item j that u
never met, drawn uniformly (never a met one), and ::

    loss = mean of -log σ(x_ui - x_uj) + reg / 2 (|p_u|² + |q_i|² + |q_j|²) + bias_reg / 2 (b_i² + b_j²)

Shapes: U users, N items, D width, b events of a batch, R negatives of each.

Where we depart, and why:
- Adam on batches of events instead of one SGD step an event: the same objective, three orders of magnitude faster.
- The paper knows only the users it was trained on. Here, after training, a D x D matrix W is fitted by ridge regression
  from the mean item vector of each history to the user's vector. A person without a known name is ``mean(q) W``; a
  known user whose history has grown is the trained vector plus the change of ``mean(q) W``, hence exactly the trained
  vector while the history is the trained one. An unknown user with an empty history is answered by popularity.
- An item that no training event shows was only ever a negative; it scores NaN.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.run import Run
from palate.core.space import Choice, Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.matrices import user_items
from palate.data.pairs import PairBatch, PairBatches, Unmet
from palate.parts import losses
from palate.training.factors import AnswersByFactors, Factors, fold_in
from palate.training.shell import GradientSystem, Lesson


class BPRConfig(Config):
    width: int = Field(64, ge=1)
    negatives: int = Field(1, ge=1)
    """Drawn for each event; the paper draws one."""
    reg: float = Field(0.001, ge=0)
    """L2 weight of the vectors of an event: user, item and negatives."""
    bias_reg: float = Field(0.0, ge=0)
    """L2 weight of the item biases of an event."""
    init_std: float = Field(0.01, gt=0)
    fold_in_reg: float = Field(1.0, ge=0)
    """Ridge weight, in users, of the map from histories to user vectors."""
    batch_size: int = Field(2048, ge=1)
    training: TrainingConfig = TrainingConfig(epochs=200, learning_rate=5e-3)


SPACE: SearchSpace = {
    "width": Choice((32, 64, 128)),
    "reg": Range(1e-4, 0.1, log=True),
    "training.learning_rate": Range(3e-4, 1e-2, log=True),
}
"""What ``--tune`` searches."""


class Network(nn.Module):
    """Tables, and beside them what answers need: filled by ``settle`` and saved with the weights."""

    user_counts: Tensor
    item_counts: Tensor
    own: Tensor
    messages: Tensor

    def __init__(self, config: BPRConfig, n_users: int, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.users = nn.Embedding(n_users, config.width)
        self.items = nn.Embedding(n_items, config.width)
        self.bias = nn.Parameter(torch.zeros(n_items))
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=config.init_std)
        self.register_buffer("user_counts", torch.zeros(n_users))
        self.register_buffer("item_counts", torch.zeros(n_items))
        self.register_buffer("own", torch.zeros(n_users, config.width))
        self.register_buffer("messages", torch.zeros(n_items, config.width))

    def count(self, met: Any) -> None:
        """How often users and items occur in ``met`` (``user_items``)."""
        self.user_counts.copy_(torch.from_numpy(np.diff(met.indptr)))
        self.item_counts.copy_(torch.from_numpy(np.bincount(met.indices, minlength=len(self.item_counts))))

    def loss(self, batch: PairBatch, negatives: Tensor) -> Tensor:
        """The mean over a batch of events; ``negatives`` is ``[b, R]``."""
        config = self.config
        user, item, other = self.users(batch.users), self.items(batch.items), self.items(negatives)
        own_bias, other_bias = self.bias[batch.items], self.bias[negatives]
        positive = (user * item).sum(-1) + own_bias
        negative = (user[:, None] * other).sum(-1) + other_bias
        penalty = config.reg * (squared(user) + squared(item) + squared(other))
        penalty = penalty + config.bias_reg * (squared(own_bias) + squared(other_bias))
        return losses.bpr(positive, negative) + penalty / (2 * len(batch))

    @torch.no_grad()
    def settle(self, met: Any) -> None:
        """Split each user's vector into what the history ``met`` (``user_items``) explains and the user's own rest."""
        users, items = (table.weight.cpu().double().numpy() for table in (self.users, self.items))
        own, messages = fold_in(users, items, met, reg=self.config.fold_in_reg)
        self.messages.copy_(torch.from_numpy(messages))
        self.own.copy_(torch.from_numpy(own))


def squared(x: Tensor) -> Tensor:
    """The sum of squares, without an array of them."""
    return torch.dot(x.flatten(), x.flatten())


class BPR(GradientSystem[BPRConfig, Network], AnswersByFactors):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = BPRConfig, Network

    def shape(self, train: Dataset) -> dict[str, Any]:
        return {"n_users": train.n_users, "n_items": train.n_items}

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        network, config = self.fitted(), self.config
        met, unmet = user_items(train), Unmet(train, run.device)
        network.count(met)

        def loss(batch: PairBatch) -> Tensor:
            batch = batch.to(run.device)
            return network.loss(batch, unmet.draw(batch.users, config.negatives))

        batches = PairBatches(train, batch_size=config.batch_size, seed=run.seed)
        return Lesson(batches, loss, settle=partial(network.settle, met))

    def factors(self) -> Factors:
        network = self.fitted()
        return Factors.of(
            users=network.users.weight, own=network.own, messages=network.messages, power=1.0,
            items=network.items.weight, bias=network.bias,
            user_counts=network.user_counts, item_counts=network.item_counts,
        )  # fmt: skip
