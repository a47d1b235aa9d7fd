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

from torch import Tensor

from palate.core.space import Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.pairs import PairBatch, Unmet
from palate.parts.pair_losses import ranking
from palate.parts.propagation import BipartiteGraph, layer_mean, said_by_items
from palate.training.graphs import GraphNetwork, GraphSystem, RankingGraphConfig, Taught


class LightGCNConfig(RankingGraphConfig):
    """Nothing beside what every graph system can be told."""


SPACE: SearchSpace = {
    "layers": Range(1, 4, whole=True),
    "reg": Range(1e-6, 1e-1, log=True),
    "training.learning_rate": Range(3e-4, 1e-2, log=True),
}
"""What ``--tune`` searches."""


class Network(GraphNetwork):
    """``[U + N, D]`` → the mean of the first ``layers + 1`` layers."""

    power = 0.5

    def __init__(self, config: LightGCNConfig, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.config = config

    def connect(self, users: Tensor, items: Tensor) -> Tensor:
        return BipartiteGraph.of(users, items, len(self.user_counts), len(self.item_counts)).adjacency

    def vectors(self, graph: Tensor, ego: Tensor) -> tuple[Tensor, Tensor]:
        return self.split(layer_mean(graph, ego, self.config.layers))

    def teach(self, graph: Tensor, batch: PairBatch, unmet: Unmet, ego: Tensor) -> Taught:
        config = self.config
        users, items = self.vectors(graph, ego)
        negatives = unmet.draw(batch.users, config.negatives) if config.loss == "bpr" else None
        loss = ranking(users, items, batch, negatives, config.temperature)
        return Taught(loss + self.penalty(batch, negatives), users, items, negatives)

    def explain(self, graph: Tensor) -> tuple[Tensor, Tensor]:
        return said_by_items(graph, self.ego(), self.config.layers, self.item_counts)


class LightGCN(GraphSystem[LightGCNConfig, Network]):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = LightGCNConfig, Network


def paper() -> LightGCNConfig:
    """The published setting: BPR with one negative, Adam at 0.001, batches of 1,024 events, up to 1,000 epochs."""
    return LightGCNConfig(
        loss="bpr", reg=1e-4, batch_size=1024,
        training=TrainingConfig(learning_rate=1e-3, betas=(0.9, 0.999), clip_norm=0.0, epochs=1000, patience=50),
    )  # fmt: skip
