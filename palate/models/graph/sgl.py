"""SGL: LightGCN, and beside its loss two thinned copies of the graph in which each node is to be found again.

Wu, Wang, Feng, He, Chen, Lian and Xie, "Self-supervised Graph Learning for Recommendation", SIGIR 2021 (arXiv
2010.10783), with edge dropout, its best view. Each batch draws two graphs, in which an edge stays by chance ``keep``;
of the vectors z' and z'' of the two, equation 10 is, for the users of the batch and likewise for its items::

    - log( exp(cos(z'_u, z''_u) / τ) / Σ over all users v of exp(cos(z'_u, z''_v) / τ) )

Shapes: U users, N items, D width, L layers, b events of a batch.

Where we depart, and why:
- An edge that stays keeps its weight; degrees are not counted anew. So it is in the code that later work builds on,
  and one layout of the graph serves all views.
- The graphs are drawn for each batch, not once an epoch, so that a stopped run goes on to the same numbers.
- The default ranking loss is cross entropy over all items, as of our LightGCN; ``paper()`` restores BPR.
People without a known name are answered as by LightGCN.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from palate.core.space import Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.pairs import PairBatch, Unmet
from palate.parts.pair_losses import Among, ranking, two_views
from palate.parts.propagation import BipartiteGraph, layer_mean, said_by_items
from palate.training.graphs import GraphNetwork, GraphSystem, RankingGraphConfig, Taught


class SGLConfig(RankingGraphConfig):
    keep: float = Field(0.8, gt=0, le=1)
    """The chance of an edge to stay in a view."""
    ssl_weight: float = Field(0.03, ge=0)
    """Of finding nodes again, beside the ranking loss."""
    ssl_temperature: float = Field(0.2, gt=0)
    among: Among = "all"
    """Which nodes one is told from."""


SPACE: SearchSpace = {
    "keep": Range(0.5, 0.95),
    "ssl_weight": Range(1e-3, 1.0, log=True),
    "ssl_temperature": Range(0.1, 1.0, log=True),
    "reg": Range(1e-6, 1e-1, log=True),
    "training.learning_rate": Range(3e-4, 1e-2, log=True),
}
"""What ``--tune`` searches."""


class Network(GraphNetwork):
    """``[U + N, D]`` → the mean of the first ``layers + 1`` layers."""

    power = 0.5

    def __init__(self, config: SGLConfig, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.config = config

    def connect(self, users: Tensor, items: Tensor) -> BipartiteGraph:
        return BipartiteGraph.of(users, items, len(self.user_counts), len(self.item_counts))

    def vectors(self, graph: BipartiteGraph, ego: Tensor) -> tuple[Tensor, Tensor]:
        return self.split(layer_mean(graph.adjacency, ego, self.config.layers))

    def teach(self, graph: BipartiteGraph, batch: PairBatch, unmet: Unmet, ego: Tensor) -> Taught:
        config = self.config
        users, items = self.vectors(graph, ego)
        negatives = unmet.draw(batch.users, config.negatives) if config.loss == "bpr" else None
        loss = ranking(users, items, batch, negatives, config.temperature)
        loss = loss + self.penalty(batch, negatives)
        if config.ssl_weight:
            loss = loss + config.ssl_weight * self.contrast(graph, batch, ego)
        return Taught(loss, users, items, negatives)

    def contrast(self, graph: BipartiteGraph, batch: PairBatch, ego: Tensor) -> Tensor:
        """How badly the nodes of the batch are found again in another view, users plus items."""
        config = self.config
        first, second = (self.split(layer_mean(graph.thinned(config.keep), ego, config.layers)) for _ in range(2))
        of_users = two_views(first[0], second[0], batch.users, config.ssl_temperature, config.among)
        of_items = two_views(first[1], second[1], batch.items, config.ssl_temperature, config.among)
        return of_users + of_items

    def explain(self, graph: BipartiteGraph) -> tuple[Tensor, Tensor]:
        return said_by_items(graph.adjacency, self.ego(), self.config.layers, self.item_counts)


class SGL(GraphSystem[SGLConfig, Network]):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = SGLConfig, Network


def paper() -> SGLConfig:
    """The published setting: BPR with one negative, Adam at 0.001, a tenth of the edges dropped, τ 0.2."""
    return SGLConfig(
        loss="bpr", reg=1e-4, batch_size=2048, keep=0.9, ssl_weight=0.1,
        training=TrainingConfig(learning_rate=1e-3, betas=(0.9, 0.999), clip_norm=0.0, epochs=1000, patience=50),
    )  # fmt: skip
