"""SimGCL: LightGCN, and beside its loss two noisy passes over the graph in which each node is to be found again.

Yu, Yin, Xia, Chen, Cui and Nguyen, "Are Graph Augmentations Necessary? Simple Graph Contrastive Learning for
Recommendation", SIGIR 2022 (arXiv 2112.08679). After every step along the graph each vector is moved by a noise of
length ε in its own orthant (equations 6 and 8)::

    E^(l) = Â E^(l-1) + Δ,    Δ = ε · sign(E^(l)) ⊙ x / |x|,    x uniform in [0, 1)^D

and the vectors of two passes are compared by InfoNCE within a batch (equation 2). Shapes: U users, N items, D width, L
layers, b events of a batch.

Where we depart, and why:
- The ego embeddings stay in the mean of the layers, as in LightGCN and in the version that RLMRec builds on; the paper
  leaves them out.
- ``among = "all"`` tells a node from all nodes instead of those of the batch.
- The default ranking loss is cross entropy over all items, as of our LightGCN; ``paper()`` restores BPR.
People without a known name are answered as by LightGCN: answers see no noise.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from palate.core.space import Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.pairs import PairBatch, Unmet
from palate.parts.pair_losses import Among, ranking, two_views
from palate.parts.propagation import BipartiteGraph, layer_mean, said_by_items, step
from palate.training.graphs import GraphNetwork, GraphSystem, RankingGraphConfig, Taught


class SimGCLConfig(RankingGraphConfig):
    noise: float = Field(0.1, ge=0)
    """ε, the length of what is added to each vector in each layer of a noisy pass."""
    ssl_weight: float = Field(0.03, ge=0)
    """Of finding nodes again, beside the ranking loss."""
    ssl_temperature: float = Field(0.2, gt=0)
    among: Among = "batch"
    """Which nodes one is told from."""


SPACE: SearchSpace = {
    "noise": Range(0.01, 1.0, log=True),
    "ssl_weight": Range(1e-3, 1.0, log=True),
    "ssl_temperature": Range(0.1, 1.0, log=True),
    "reg": Range(1e-6, 1e-1, log=True),
    "training.learning_rate": Range(3e-4, 1e-2, log=True),
}
"""What ``--tune`` searches."""


class Network(GraphNetwork):
    """``[U + N, D]`` → the mean of the first ``layers + 1`` layers."""

    power = 0.5

    def __init__(self, config: SimGCLConfig, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.config = config

    def connect(self, users: Tensor, items: Tensor) -> Tensor:
        return BipartiteGraph.of(users, items, len(self.user_counts), len(self.item_counts)).adjacency

    def vectors(self, graph: Tensor, ego: Tensor) -> tuple[Tensor, Tensor]:
        return self.split(layer_mean(graph, ego, self.config.layers))

    def noisy(self, graph: Tensor, ego: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors of a pass in which noise is added after every step."""
        total = x = ego
        for _ in range(self.config.layers):
            x = step(graph, x)
            x = x + self.config.noise * torch.sign(x.detach()) * F.normalize(torch.rand_like(x), dim=-1)
            total = total + x
        return self.split(total / (self.config.layers + 1))

    def teach(self, graph: Tensor, batch: PairBatch, unmet: Unmet, ego: Tensor) -> Taught:
        config = self.config
        users, items = self.vectors(graph, ego)
        negatives = unmet.draw(batch.users, config.negatives) if config.loss == "bpr" else None
        loss = ranking(users, items, batch, negatives, config.temperature)
        loss = loss + self.penalty(batch, negatives)
        if config.ssl_weight:
            loss = loss + config.ssl_weight * self.contrast(graph, batch, ego)
        return Taught(loss, users, items, negatives)

    def contrast(self, graph: Tensor, batch: PairBatch, ego: Tensor) -> Tensor:
        """How badly the nodes of the batch are found again in another pass, users plus items."""
        config, first, second = self.config, self.noisy(graph, ego), self.noisy(graph, ego)
        of_users = two_views(first[0], second[0], batch.users, config.ssl_temperature, config.among)
        of_items = two_views(first[1], second[1], batch.items, config.ssl_temperature, config.among)
        return of_users + of_items

    def explain(self, graph: Tensor) -> tuple[Tensor, Tensor]:
        return said_by_items(graph, self.ego(), self.config.layers, self.item_counts)


class SimGCL(GraphSystem[SimGCLConfig, Network]):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = SimGCLConfig, Network


def paper() -> SimGCLConfig:
    """The published setting: BPR with one negative, Adam at 0.001, noise 0.1, τ 0.2."""
    return SimGCLConfig(
        loss="bpr", reg=1e-4, batch_size=2048, ssl_weight=0.5,
        training=TrainingConfig(learning_rate=1e-3, betas=(0.9, 0.999), clip_norm=0.0, epochs=1000, patience=50),
    )  # fmt: skip
