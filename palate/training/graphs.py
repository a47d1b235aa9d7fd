"""The shell of graph systems: vectors of users and items that flow along who met what.

A system of this kind writes its network: how edges become a graph, how ego embeddings become vectors, what one batch
of events teaches. The ego embeddings are an argument throughout, so whoever holds such a network may change them on
the way (a mask, say) and add a loss of its own to that of the network. Shapes: U users, N items, D width, D' width of
the vectors that are compared, b events of a batch, R negatives of each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.data.matrices import user_items
from palate.data.pairs import PairBatch, PairBatches, Unmet
from palate.training.factors import AnswersByFactors, Factors, fold_in
from palate.training.shell import GradientSystem, Lesson


class GraphConfig(Config):
    """What every graph system can be told."""

    width: int = Field(64, ge=1)
    layers: int = Field(3, ge=1)
    reg: float = Field(0.01, ge=0)
    """L2 weight of the ego embeddings of an event: user, item and negatives."""
    init_std: float = Field(0.1, gt=0)
    batch_size: int = Field(4096, ge=1)
    """Events; each batch pays one propagation over the whole graph."""
    training: TrainingConfig = TrainingConfig(epochs=400, learning_rate=1e-2, patience=40)


class RankingGraphConfig(GraphConfig):
    """Of a system that may choose how it is taught to rank."""

    loss: Literal["full-softmax", "bpr"] = "full-softmax"
    negatives: int = Field(1, ge=1)
    """Drawn for each event by the bpr loss; full softmax uses none."""
    temperature: float = Field(1.0, gt=0)
    """Full softmax divides scores by it."""


@dataclass(frozen=True, eq=False)
class Taught:
    """What one batch taught.

    loss       a mean over its events, every term of the system in it
    users      ``[U, D']`` the vectors that were compared
    items      ``[N, D']``
    negatives  ``[b, R]`` item rows, where the loss drew any
    """

    loss: Tensor
    users: Tensor
    items: Tensor
    negatives: Tensor | None


C = TypeVar("C", bound=GraphConfig)


class GraphNetwork(nn.Module, ABC):
    """Ego embeddings, and beside them what answers need: filled by ``settle`` and saved with the weights."""

    power: ClassVar[float] = 1.0
    """A history of n items says the sum of their messages over ``n ** power``."""
    user_counts: Tensor
    item_counts: Tensor
    user_vectors: Tensor
    item_vectors: Tensor
    own: Tensor
    messages: Tensor

    def __init__(self, config: GraphConfig, n_users: int, n_items: int, compared: int | None = None) -> None:
        """``compared`` is D', where it is not D."""
        super().__init__()
        self.reg = config.reg
        self.users = nn.Embedding(n_users, config.width)
        self.items = nn.Embedding(n_items, config.width)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=config.init_std)
        width = compared or config.width
        self.register_buffer("user_counts", torch.zeros(n_users))
        self.register_buffer("item_counts", torch.zeros(n_items))
        for name, n in (("user_vectors", n_users), ("item_vectors", n_items), ("own", n_users), ("messages", n_items)):
            self.register_buffer(name, torch.zeros(n, width))

    @abstractmethod
    def connect(self, users: Tensor, items: Tensor) -> Any:
        """What ``vectors`` and ``teach`` flow along, from distinct edges ``[E]``."""

    @abstractmethod
    def vectors(self, graph: Any, ego: Tensor) -> tuple[Tensor, Tensor]:
        """Ego embeddings ``[U + N, D]`` → the vectors that answers compare: users ``[U, D']`` and items ``[N, D']``."""

    @abstractmethod
    def teach(self, graph: Any, batch: PairBatch, unmet: Unmet, ego: Tensor) -> Taught:
        """The loss of a batch of events, from these ego embeddings ``[U + N, D]``."""

    def explain(self, graph: Any) -> tuple[Tensor, Tensor] | None:
        """A user's vector as an own part ``[U, D']`` and the messages of the items met ``[N, D']``, where the network
        knows it; None leaves it to a fit."""
        return None

    def ego(self) -> Tensor:
        """``[U + N, D]`` users first."""
        return torch.cat([self.users.weight, self.items.weight])

    def penalty(self, batch: PairBatch, negatives: Tensor | None) -> Tensor:
        """``reg / 2`` times the squared length of an event's ego embeddings (user, item and negatives), mean."""
        parts = [self.users(batch.users), self.items(batch.items)]
        if negatives is not None:
            parts.append(self.items(negatives))
        return self.reg / (2 * len(batch)) * torch.stack([torch.dot(x.flatten(), x.flatten()) for x in parts]).sum()

    def split(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """``[U + N, …]`` → users and items."""
        n_users = self.users.num_embeddings
        return nodes[:n_users], nodes[n_users:]

    @torch.no_grad()
    def settle(self, ground: Ground) -> None:
        """Keep the final vectors and what each item passes to a user who met it, so that answers need no graph."""
        users, items = self.vectors(ground.graph, self.ego())
        self.user_vectors.copy_(users)
        self.item_vectors.copy_(items)
        known = self.explain(ground.graph)
        if known is None:
            of_users, of_items = (part.cpu().double().numpy() for part in (users, items))
            own, messages = fold_in(of_users, of_items, ground.met, reg=1.0)
            known = torch.from_numpy(own), torch.from_numpy(messages)
        self.own.copy_(known[0])
        self.messages.copy_(known[1])

    def factors(self) -> Factors:
        """What answers need, as arrays."""
        return Factors.of(
            users=self.user_vectors, own=self.own, messages=self.messages, power=self.power, items=self.item_vectors,
            bias=None, user_counts=self.user_counts, item_counts=self.item_counts,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Ground:
    """What a graph network learns on: who met what, as a sparse matrix ``[U, N]``, as draws of the rest, as a graph."""

    met: Any
    unmet: Unmet
    graph: Any

    @classmethod
    def of(cls, network: GraphNetwork, train: Dataset, device: torch.device | str) -> Ground:
        """From the training events; ``network`` is told how often users and items occur."""
        met = user_items(train)
        network.user_counts.copy_(torch.from_numpy(np.diff(met.indptr)))
        network.item_counts.copy_(torch.from_numpy(np.bincount(met.indices, minlength=train.n_items)))
        users, items = (torch.from_numpy(rows.astype(np.int64)).to(device) for rows in met.nonzero())
        return cls(met, Unmet(train, device), network.connect(users, items))


N = TypeVar("N", bound=GraphNetwork)


class GraphSystem(GradientSystem[C, N], AnswersByFactors):
    """The recommender around a graph network."""

    def shape(self, train: Dataset) -> dict[str, Any]:
        return {"n_users": train.n_users, "n_items": train.n_items}

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        network = self.fitted()
        ground = Ground.of(network, train, run.device)

        def loss(batch: PairBatch) -> Tensor:
            return network.teach(ground.graph, batch.to(run.device), ground.unmet, network.ego()).loss

        batches = PairBatches(train, batch_size=self.config.batch_size, seed=run.seed)
        return Lesson(batches, loss, settle=partial(network.settle, ground))

    def factors(self) -> Factors:
        return self.fitted().factors()
