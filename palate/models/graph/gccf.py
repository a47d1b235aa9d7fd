"""GCCF: linear propagation with self-loops; the layers stand side by side, so that each is compared with its own.

Chen, Wu, Hong, Zhang and Wang, "Revisiting Graph Based Collaborative Filtering: A Linear Residual Graph Convolutional
Network Approach", AAAI 2020 (arXiv 2001.10167). With Ã the normalised adjacency of the graph in which every node is its
own neighbour, too::

    E^(l) = Ã E^(l-1)        e = [E⁰, E¹, … E^L]        score = e_u · e_i = the sum over layers of E^l_u · E^l_i

so a layer predicts what the layers before it left over. Shapes: U users, N items, D width, L layers.

Where we depart, and why:
- No transformation between layers: the paper's linear maps fold into one another, and the implementations that later
  work compares with have none.
- The default loss is cross entropy over all items, as of our LightGCN; ``paper()`` restores BPR.
- A person without a known name is answered by a ridge fit from the items met (``training.factors.fold_in``): with
  self-loops a user's own share of each layer depends on how much was met.
"""

from __future__ import annotations

import torch
from torch import Tensor

from palate.core.space import Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.pairs import PairBatch, Unmet
from palate.parts.pair_losses import ranking
from palate.parts.propagation import BipartiteGraph, layers
from palate.training.graphs import GraphNetwork, GraphSystem, RankingGraphConfig, Taught


class GCCFConfig(RankingGraphConfig):
    """Nothing beside what every graph system can be told."""


SPACE: SearchSpace = {
    "layers": Range(1, 4, whole=True),
    "reg": Range(1e-6, 1e-1, log=True),
    "training.learning_rate": Range(3e-4, 1e-2, log=True),
}
"""What ``--tune`` searches."""


class Network(GraphNetwork):
    """``[U + N, D]`` → ``[U + N, (L + 1) D]``."""

    def __init__(self, config: GCCFConfig, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items, compared=config.width * (config.layers + 1))
        self.config = config

    def connect(self, users: Tensor, items: Tensor) -> BipartiteGraph:
        return BipartiteGraph.of(users, items, len(self.user_counts), len(self.item_counts), loops=True)

    def vectors(self, graph: BipartiteGraph, ego: Tensor) -> tuple[Tensor, Tensor]:
        return self.split(torch.cat([*layers(graph.adjacency, ego, self.config.layers, graph.loop_weights)], dim=1))

    def teach(self, graph: BipartiteGraph, batch: PairBatch, unmet: Unmet, ego: Tensor) -> Taught:
        config = self.config
        users, items = self.vectors(graph, ego)
        negatives = unmet.draw(batch.users, config.negatives) if config.loss == "bpr" else None
        loss = ranking(users, items, batch, negatives, config.temperature)
        return Taught(loss + self.penalty(batch, negatives), users, items, negatives)


class GCCF(GraphSystem[GCCFConfig, Network]):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = GCCFConfig, Network


def paper() -> GCCFConfig:
    """BPR with one negative, Adam at 0.001."""
    return GCCFConfig(
        loss="bpr", reg=1e-2, batch_size=2048,
        training=TrainingConfig(learning_rate=1e-3, betas=(0.9, 0.999), clip_norm=0.0, epochs=1000, patience=50),
    )  # fmt: skip
