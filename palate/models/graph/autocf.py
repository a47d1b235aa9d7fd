"""AutoCF: a masked auto-encoder of the graph: edges around chosen nodes are hidden, and vectors must say them again.

Xia, Huang, Huang, Lin, Yu and Kao, "Automated Self-Supervised Learning for Recommendation", WWW 2023 (arXiv
2303.07797). Each batch:

1. Nodes that resemble their neighbourhood are the likelier seeds: ``log σ(cos(mean of the 2-hop neighbours, e))`` plus
   Gumbel noise, best first. Making that resemblance large for all nodes is the infomax term.
2. Edges within ``mask_depth`` steps of a seed are hidden. The encoder, LightGCN without a mean, sees the rest.
3. The decoder, a graph transformer, attends over what is left, over each node itself, and over pairs drawn at random
   among seeds, their neighbours and some other nodes; so it reaches across what was hidden.
4. Sum of all layers; ``-e_u · e_i`` for each event, plus log-sum-exp over all items for each user of the batch, plus
   ``ssl_weight`` times log-sum-exp over all users for its users and over all items for its items. No negatives are
   drawn: each sum tells a node from all.

Shapes: U users, N items, D width, H heads, n = U + N nodes, E edges, M attended pairs, b events of a batch.

Where we depart, and why:
- Seeds and graphs are drawn for each batch instead of every ten, and the infomax term is weighed down instead: nothing
  of a mask outlives its batch, so a stopped run goes on to the same numbers.
- ``seeds`` is a share of the nodes, ``complement`` a share of the edges; the published counts are of larger graphs.
- A person without a known name is answered by a ridge fit from the items met (``training.factors.fold_in``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from palate.core.space import Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.pairs import PairBatch, Unmet
from palate.parts.pair_losses import full_softmax, log_partitions
from palate.parts.propagation import BipartiteGraph, layers, step
from palate.training.graphs import GraphConfig, GraphNetwork, GraphSystem, Taught


class AutoCFConfig(GraphConfig):
    layers: int = Field(2, ge=1)
    """Of the encoder."""
    decoder_layers: int = Field(1, ge=1)
    heads: int = Field(4, ge=1)
    seeds: float = Field(0.02, gt=0, le=1)
    """The share of nodes around which edges are hidden."""
    mask_depth: int = Field(1, ge=1)
    """Edges so many steps from a seed are hidden."""
    others: float = Field(0.2, ge=0, le=1)
    """Other nodes that random pairs are drawn from, as a share of all."""
    complement: float = Field(0.2, ge=0)
    """Random pairs that the decoder attends to, as a share of the edges."""
    ssl_weight: float = Field(0.1, ge=0)
    """Of telling users from users and items from items."""
    infomax_weight: float = Field(0.1, ge=0)
    temperature: float = Field(1.0, gt=0)
    """Scores are divided by it where they are compared with those of all others."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> AutoCFConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be shared equally by {self.heads} heads")
        return self


SPACE: SearchSpace = {
    "layers": Range(1, 3, whole=True),
    "seeds": Range(0.005, 0.1, log=True),
    "ssl_weight": Range(1e-2, 2.0, log=True),
    "reg": Range(1e-6, 1e-1, log=True),
    "training.learning_rate": Range(3e-4, 1e-2, log=True),
}
"""What ``--tune`` searches."""


@dataclass(frozen=True, eq=False)
class Links:
    """The whole graph, and what seeds are chosen by: the plain adjacency and how many lie within two steps."""

    graph: BipartiteGraph

    @cached_property
    def plain(self) -> Tensor:
        return self.graph.weighted(torch.ones_like(self.graph.weights))

    @cached_property
    def degrees(self) -> Tensor:
        """``[n, 1]``."""
        return self.graph.degrees.float()[:, None]

    @cached_property
    def reach(self) -> Tensor:
        """``[n, 1]`` walks of one step and of two that do not turn back."""
        return self.degrees + step(self.plain, self.degrees) - self.degrees

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """Every edge both ways and every node with itself: what the decoder attends to when it answers."""
        return attended(self.graph)


def attended(graph: BipartiteGraph, more: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """``[M]`` rows and columns: edges both ways, every node with itself, ``more`` pairs both ways, each once."""
    items, itself = graph.items + graph.n_users, torch.arange(graph.n_nodes, device=graph.users.device)
    rows, columns = [graph.users, items, itself], [items, graph.users, itself]
    if more is None:
        return torch.cat(rows), torch.cat(columns)
    keys = torch.cat([*rows, *more]) * graph.n_nodes + torch.cat([*columns, *reversed(more)])
    keys = torch.unique(keys)
    return keys // graph.n_nodes, keys % graph.n_nodes


class Attention(nn.Module):
    """``[n, D]`` → ``[n, D]``: what each node hears from those it attends to (equation 6)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        for linear in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        n, d = x.shape
        q, k, v = (linear(x).view(n, self.heads, d // self.heads) for linear in (self.query, self.key, self.value))
        # Bounded before the exponential, as in the published code; no row's largest is needed then.
        weight = (q[rows] * k[columns]).sum(-1).float().clamp(-10, 10).exp()  # [M, H]
        total = weight.new_zeros((n, self.heads)).index_add(0, rows, weight)
        heard = (weight / total[rows])[:, :, None] * v[columns].float()
        return heard.new_zeros((n, self.heads, d // self.heads)).index_add(0, rows, heard).view(n, d)


class Network(GraphNetwork):
    """``[n, D]`` → the sum of the encoder's and the decoder's layers."""

    def __init__(self, config: AutoCFConfig, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.config = config
        self.decoder = nn.ModuleList(Attention(config.width, config.heads) for _ in range(config.decoder_layers))

    def connect(self, users: Tensor, items: Tensor) -> Links:
        return Links(BipartiteGraph.of(users, items, len(self.user_counts), len(self.item_counts)))

    def vectors(self, graph: Links, ego: Tensor) -> tuple[Tensor, Tensor]:
        return self.decoded(graph.graph.adjacency, ego, graph.pairs)

    def decoded(self, adjacency: Tensor, ego: Tensor, pairs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Encoder over ``adjacency``, decoder over ``pairs``."""
        total = x = ego
        for layer in [*layers(adjacency, ego, self.config.layers)][1:]:
            total, x = total + layer, layer
        for attention in self.decoder:
            x = attention(x, *pairs)
            total = total + x
        return self.split(total)

    def resemblance(self, graph: Links, ego: Tensor) -> Tensor:
        """``[n]`` σ of the cosine between a node and the mean of what lies one and two steps away."""
        near = step(graph.plain, ego)
        further = step(graph.plain, near) - graph.degrees * ego
        around = (near + further) / graph.reach.clamp(min=1e-8)
        return torch.sigmoid(F.cosine_similarity(around, ego, dim=-1))

    @torch.no_grad()
    def masked(self, graph: BipartiteGraph, resemblance: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What encoder and decoder see of a batch."""
        config, n = self.config, graph.n_nodes
        noise = -(-torch.rand_like(resemblance).clamp(min=1e-20).log()).clamp(min=1e-20).log()
        seeds = (resemblance.log() + noise).topk(max(1, round(config.seeds * n))).indices
        hidden, touched = around(graph, seeds, config.mask_depth)
        rest = graph.part(~hidden)
        others = torch.randint(n, (round(config.others * n),), device=seeds.device)
        pool = torch.unique(torch.cat([touched.nonzero()[:, 0], others]))
        drawn = torch.randint(len(pool), (2, round(config.complement * len(graph.users))), device=seeds.device)
        one, other = pool[drawn[0]], pool[drawn[1]]
        return rest.adjacency, attended(rest, (torch.cat([one, other]), torch.cat([other, one])))

    def teach(self, graph: Links, batch: PairBatch, unmet: Unmet, ego: Tensor) -> Taught:
        config = self.config
        resemblance = self.resemblance(graph, ego)
        adjacency, pairs = self.masked(graph.graph, resemblance.detach())
        users, items = self.decoded(adjacency, ego, pairs)
        loss = full_softmax(users, items / config.temperature, batch) + self.penalty(batch, None)
        if config.ssl_weight:
            apart = self.apart(users, batch.users) + self.apart(items, batch.items)
            loss = loss + config.ssl_weight * apart
        if config.infomax_weight:
            loss = loss - config.infomax_weight * resemblance.mean()
        return Taught(loss, users, items, None)

    def apart(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """Log-sum-exp of a node's products with all nodes of its kind, mean over the distinct ``rows``."""
        rows = torch.unique(rows)
        asked = F.embedding(rows, vectors) / self.config.temperature
        return log_partitions(asked, vectors, torch.ones_like(rows)) / len(rows)


def around(graph: BipartiteGraph, seeds: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Which edges ``[E]`` lie within ``depth`` steps of a seed, and which nodes ``[n]`` within one step less."""
    touched = torch.zeros(graph.n_nodes, dtype=torch.bool, device=seeds.device)
    touched[seeds] = True
    hidden = torch.zeros_like(graph.users, dtype=torch.bool)
    items = graph.items + graph.n_users
    for left in reversed(range(depth)):
        hidden = touched[graph.users] | touched[items]
        if left:
            touched[graph.users[hidden]] = True
            touched[items[hidden]] = True
    return hidden, touched


class AutoCF(GraphSystem[AutoCFConfig, Network]):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = AutoCFConfig, Network


def paper() -> AutoCFConfig:
    """The published setting: width 32, Adam at 0.001, edges two steps around a seed hidden, as many random pairs as
    edges."""
    return AutoCFConfig(
        width=32, reg=1e-6, mask_depth=2, complement=1.0, ssl_weight=1.0, batch_size=4096,
        training=TrainingConfig(learning_rate=1e-3, betas=(0.9, 0.999), clip_norm=0.0, epochs=1000, patience=50),
    )  # fmt: skip
