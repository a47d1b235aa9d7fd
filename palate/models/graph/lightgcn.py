"""LightGCN: embeddings of users and items, averaged along the graph of who met what; no weights, no nonlinearity.

He, Deng, Wang, Li, Zhang and Wang, "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation",
SIGIR 2020 (arXiv 2002.02126). With ego embeddings ``E⁰`` and the symmetric normalised adjacency Â (equations 3 to 8)::

    E = (E⁰ + Â E⁰ + … + Â^L E⁰) / (L + 1)        score = e_u · e_i

Shapes: U users, N items, D width, L layers, b events of a batch, R negatives of each.

Where we depart, and why:
- The default loss is cross entropy over all items: it learns in a third of the epochs and ranks better (Wu et al., "On
  the Effectiveness of Sampled Softmax Loss for Item Recommendation", arXiv 2201.02327, say why). A user's
  vector does not depend on the event, so a batch needs one row of logits a user. ``paper()`` restores BPR with one
  negative, uniform over what the user never met.
- The paper knows only the users of its graph. But the layers above the first reach a user from the items met alone, so
  a person without a known name is the propagation of the history, with no ego embedding; a known user with a longer
  history is the own ego embedding plus the propagation of that history, hence exactly the trained vector while the
  history is the trained one. An unknown user with an empty history is answered by popularity.
- An item that no training event shows has no edge; it scores NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.protocols import FloatArray, ScoresAll
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.space import Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.matrices import user_items
from palate.data.pairs import PairBatch, PairBatches, Unmet
from palate.parts import losses
from palate.parts.propagation import layer_mean, normalised_adjacency
from palate.training.factors import Factors
from palate.training.shell import GradientSystem, Lesson


class LightGCNConfig(Config):
    width: int = Field(64, ge=1)
    layers: int = Field(3, ge=1)
    loss: Literal["full-softmax", "bpr"] = "full-softmax"
    negatives: int = Field(1, ge=1)
    """Drawn for each event by the bpr loss; full softmax uses none."""
    reg: float = Field(0.01, ge=0)
    """L2 weight of the ego embeddings of an event: user, item and negatives."""
    init_std: float = Field(0.1, gt=0)
    temperature: float = Field(1.0, gt=0)
    """Full softmax divides scores by it."""
    batch_size: int = Field(4096, ge=1)
    """Events; each batch pays one propagation over the whole graph."""
    training: TrainingConfig = TrainingConfig(epochs=400, learning_rate=1e-2, patience=40)


SPACE: SearchSpace = {
    "layers": Range(1, 4, whole=True),
    "reg": Range(1e-6, 1e-2, log=True),
    "training.learning_rate": Range(3e-4, 1e-2, log=True),
}
"""What ``--tune`` searches."""


class Network(nn.Module):
    """Ego embeddings, and beside them what answers need: filled by ``settle`` and saved with the weights."""

    user_counts: Tensor
    item_counts: Tensor
    user_vectors: Tensor
    item_vectors: Tensor
    messages: Tensor

    def __init__(self, config: LightGCNConfig, n_users: int, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.users = nn.Embedding(n_users, config.width)
        self.items = nn.Embedding(n_items, config.width)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=config.init_std)
        self.register_buffer("user_counts", torch.zeros(n_users))
        self.register_buffer("item_counts", torch.zeros(n_items))
        self.register_buffer("user_vectors", torch.zeros(n_users, config.width))
        self.register_buffer("item_vectors", torch.zeros(n_items, config.width))
        self.register_buffer("messages", torch.zeros(n_items, config.width))

    def count(self, met: Any) -> None:
        """How often users and items occur in ``met`` (``user_items``)."""
        self.user_counts.copy_(torch.from_numpy(np.diff(met.indptr)))
        self.item_counts.copy_(torch.from_numpy(np.bincount(met.indices, minlength=len(self.item_counts))))

    def forward(self, adjacency: Tensor, n_layers: int) -> tuple[Tensor, Tensor]:
        """The mean of the first ``n_layers + 1`` layers: users ``[U, D]`` and items ``[N, D]``."""
        ego = torch.cat([self.users.weight, self.items.weight])
        mean = layer_mean(adjacency, ego, n_layers)
        return mean[: len(self.users.weight)], mean[len(self.users.weight) :]

    def loss(self, adjacency: Tensor, batch: PairBatch, unmet: Unmet) -> Tensor:
        """The mean over a batch of events."""
        config = self.config
        users, items = self(adjacency, config.layers)
        ego = [self.users(batch.users), self.items(batch.items)]
        if config.loss == "full-softmax":
            loss = full_softmax(users, items / config.temperature, batch)
        else:
            negatives = unmet.draw(batch.users, config.negatives)
            ego.append(self.items(negatives))
            user = F.embedding(batch.users, users)
            positive = (user * F.embedding(batch.items, items)).sum(-1)
            negative = (user[:, None] * F.embedding(negatives, items)).sum(-1)
            loss = losses.bpr(positive, negative)
        squares = torch.stack([torch.dot(part.flatten(), part.flatten()) for part in ego])
        return loss + config.reg / (2 * len(batch)) * squares.sum()

    @torch.no_grad()
    def settle(self, adjacency: Tensor) -> None:
        """Keep the final vectors and what each item passes to a user who met it, so that answers need no graph."""
        n_layers = self.config.layers
        users, items = self(adjacency, n_layers)
        self.user_vectors.copy_(users)
        self.item_vectors.copy_(items)
        _, below = self(adjacency, n_layers - 1)
        self.messages.copy_(below * (n_layers / (n_layers + 1) * self.item_counts.clamp(min=1).rsqrt())[:, None])


def full_softmax(users: Tensor, items: Tensor, batch: PairBatch) -> Tensor:
    """``-log softmax(e_u · e_i over all items)[i]``, mean over the events; logits once a user, not once an event."""
    asked, counts = torch.unique(batch.users, return_counts=True)
    own = (F.embedding(batch.users, users) * F.embedding(batch.items, items)).sum()
    return (log_partitions(F.embedding(asked, users), items, counts) - own) / len(batch)


def log_partitions(users: Tensor, items: Tensor, weights: Tensor) -> Tensor:
    """``sum over u of w_u log(sum over i of exp(e_u · e_i))``, never holding ``[U, N]`` at once."""
    rows = max(1, losses.LOGIT_BYTES // (4 * len(items)))
    return _LogPartitions.apply(users, items, weights, rows)  # type: ignore[no-untyped-call]


class _LogPartitions(torch.autograd.Function):
    """Each chunk of logits lives only while its value and gradients are taken."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, weights: Tensor, rows: int) -> Tensor:
        value = users.new_zeros(())
        grad_users, grad_items = torch.empty_like(users), torch.zeros_like(items)
        with torch.autocast(users.device.type, enabled=False):
            for start in range(0, len(users), rows):
                part, weight = users[start : start + rows], weights[start : start + rows, None]
                logits = part @ items.T
                top = logits.amax(1, keepdim=True)
                total = logits.sub_(top).exp_().sum(1, keepdim=True)
                value += (weight * (total.log() + top)).sum()
                logits.mul_(weight / total)
                torch.mm(logits, items, out=grad_users[start : start + rows])
                grad_items.addmm_(logits.T, part)
        ctx.save_for_backward(grad_users, grad_items)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_users, grad_items = ctx.saved_tensors
        return grad_users * grads[0], grad_items * grads[0], None, None


class LightGCN(GradientSystem[LightGCNConfig, Network], ScoresAll):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = LightGCNConfig, Network

    def shape(self, train: Dataset) -> dict[str, Any]:
        return {"n_users": train.n_users, "n_items": train.n_items}

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        network, config = self.fitted(), self.config
        met, unmet = user_items(train), Unmet(train, run.device)
        network.count(met)
        users, items = (torch.from_numpy(rows.astype(np.int64)) for rows in met.nonzero())
        adjacency = normalised_adjacency(users, items, train.n_users, train.n_items).to(run.device)

        def loss(batch: PairBatch) -> Tensor:
            return network.loss(adjacency, batch.to(run.device), unmet)

        batches = PairBatches(train, batch_size=config.batch_size, seed=run.seed)
        return Lesson(batches, loss, settle=partial(network.settle, adjacency))

    def score_blocks(self, requests: Requests) -> Iterator[FloatArray]:
        network = self.fitted()
        return Factors.of(
            users=network.user_vectors, own=network.users.weight / (self.config.layers + 1),
            messages=network.messages, power=0.5, items=network.item_vectors, bias=None,
            user_counts=network.user_counts, item_counts=network.item_counts,
        ).score_blocks(requests)  # fmt: skip


def paper() -> LightGCNConfig:
    """The published setting: BPR with one negative, Adam at 0.001, batches of 1,024 events, up to 1,000 epochs."""
    return LightGCNConfig(
        loss="bpr", reg=1e-4, batch_size=1024,
        training=TrainingConfig(learning_rate=1e-3, betas=(0.9, 0.999), clip_norm=0.0, epochs=1000, patience=50),
    )  # fmt: skip
