"""Embeddings that flow along a bipartite graph: the symmetric normalised adjacency, steps along it, the mean of layers.

With E edges between U users and N items, the adjacency Â is ``[U + N, U + N]``, users first, and
``Â[u, i] = Â[i, u] = 1 / sqrt(degree of u · degree of i)`` (He et al., LightGCN, SIGIR 2020, equations 3 to 8).
Everything here is linear in the embeddings and, as Â is symmetric, its own gradient: nothing is kept for the way back.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class BipartiteGraph:
    """Distinct edges between U users and N items, on one device.

    users, items  ``[E]`` int64 rows, ascending by user, then item
    loops         whether every node is its own neighbour, too, which raises all degrees by one
    """

    users: Tensor
    items: Tensor
    n_users: int
    n_items: int
    loops: bool = False

    @classmethod
    def of(cls, users: Tensor, items: Tensor, n_users: int, n_items: int, *, loops: bool = False) -> BipartiteGraph:
        """From edges ``users``, ``items`` ``[E]``; an edge given twice counts once."""
        keys = torch.unique(users.long() * n_items + items.long())
        return cls(keys // n_items, keys % n_items, n_users, n_items, loops)

    @property
    def n_nodes(self) -> int:
        return self.n_users + self.n_items

    @cached_property
    def _by_item(self) -> Tensor:
        """``[E]`` the order of the edges by item, then user."""
        return torch.argsort(self.items, stable=True)

    @cached_property
    def degrees(self) -> Tensor:
        """``[U + N]`` edges of each node, loops apart."""
        users = torch.bincount(self.users, minlength=self.n_users)
        return torch.cat([users, torch.bincount(self.items, minlength=self.n_items)])

    @cached_property
    def weights(self) -> Tensor:
        """``[E]`` Â at each edge."""
        degrees = self.degrees + int(self.loops)
        return (degrees[self.users].double() * degrees[self.items + self.n_users]).rsqrt().float()

    @cached_property
    def loop_weights(self) -> Tensor:
        """``[U + N]`` the diagonal of Â where ``loops`` are asked for; it is no part of ``adjacency``."""
        return 1 / (self.degrees + 1).float()

    @cached_property
    def _layout(self) -> tuple[Tensor, Tensor]:
        """Offsets ``[U + N + 1]`` and columns ``[2E]`` of the rows of Â."""
        offsets = torch.cat([self.degrees.new_zeros(1), self.degrees.cumsum(0)])
        return offsets, torch.cat([self.items + self.n_users, self.users[self._by_item]])

    @cached_property
    def adjacency(self) -> Tensor:
        """Â as a sparse CSR float32 tensor."""
        return self.weighted(self.weights)

    def weighted(self, weights: Tensor) -> Tensor:
        """A symmetric CSR tensor with ``weights`` ``[E]`` at the edges, both ways."""
        offsets, columns = self._layout
        values = torch.cat([weights, weights[self._by_item]])
        with warnings.catch_warnings():  # torch calls its CSR layout beta, once a process
            warnings.simplefilter("ignore", UserWarning)
            return torch.sparse_csr_tensor(
                offsets, columns, values, size=(self.n_nodes, self.n_nodes), check_invariants=False
            )

    @cached_property
    def sides(self) -> tuple[Tensor, Tensor]:
        """Ones at the edges as two CSR tensors: ``[U, N]`` and ``[N, U]``."""
        (offsets, columns), n, e = self._layout, self.n_users, len(self.users)
        values = torch.ones_like(self.weights)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return (
                torch.sparse_csr_tensor(offsets[: n + 1], columns[:e] - n, values, size=(n, self.n_items)),
                torch.sparse_csr_tensor(offsets[n:] - e, columns[e:], values, size=(self.n_items, n)),
            )

    def to_users(self, x: Tensor) -> Tensor:
        """``[U, D]`` the sum over each user's items of ``x`` ``[N, D]``."""
        users_items, items_users = self.sides
        return across(users_items, items_users, x)

    def to_items(self, x: Tensor) -> Tensor:
        """``[N, D]`` the sum over each item's users of ``x`` ``[U, D]``."""
        users_items, items_users = self.sides
        return across(items_users, users_items, x)

    def thinned(self, keep: float) -> Tensor:
        """Â with each edge kept by chance ``keep``, both ways or neither; what stays keeps its weight."""
        kept = torch.rand(len(self.users), device=self.users.device) < keep
        return self.weighted(self.weights * kept)

    def part(self, kept: Tensor) -> BipartiteGraph:
        """The same nodes with the edges flagged in ``kept`` ``[E]``; degrees are counted anew."""
        return BipartiteGraph(self.users[kept], self.items[kept], self.n_users, self.n_items, self.loops)


@dataclass(frozen=True, eq=False)
class Flow:
    """Steps from one side of a graph to the other, scaled by ``degree ** -0.5`` of both ends, or with ``rows`` of the
    receiving end alone."""

    graph: BipartiteGraph
    rows: bool = False

    @cached_property
    def scales(self) -> tuple[Tensor, Tensor]:
        """``[U, 1]`` and ``[N, 1]``."""
        scale = self.graph.degrees.clamp(min=1).rsqrt()[:, None]
        return scale[: self.graph.n_users], scale[self.graph.n_users :]

    def to_users(self, items: Tensor) -> Tensor:
        """``[N, D]`` → ``[U, D]``."""
        of_users, of_items = self.scales
        return of_users * self.graph.to_users(items if self.rows else of_items * items)

    def to_items(self, users: Tensor) -> Tensor:
        """``[U, D]`` → ``[N, D]``."""
        of_users, of_items = self.scales
        return of_items * self.graph.to_items(users if self.rows else of_users * users)

    def layer_mean(self, users: Tensor, items: Tensor, n_layers: int) -> tuple[Tensor, Tensor]:
        """The mean of ``n_layers`` and the embeddings themselves. With ``rows`` items follow the users of their own
        layer, and the last layer is a softmax over the width: so does the public code of LLMRec."""
        if not self.rows:
            mean = layer_mean(self.graph.adjacency, torch.cat([users, items]), n_layers)
            return mean[: len(users)], mean[len(users) :]
        totals = users, items
        for layer in range(n_layers):
            last = layer == n_layers - 1
            users = self.to_users(items).softmax(-1) if last else self.to_users(items)
            items = self.to_items(users).softmax(-1) if last else self.to_items(users)
            totals = totals[0] + users, totals[1] + items
        return totals[0] / (n_layers + 1), totals[1] / (n_layers + 1)


def normalised_adjacency(users: Tensor, items: Tensor, n_users: int, n_items: int) -> Tensor:
    """Â as a sparse CSR float32 tensor from the edges ``users``, ``items`` ``[E]``; an edge given twice counts once."""
    return BipartiteGraph.of(users, items, n_users, n_items).adjacency


def step(adjacency: Tensor, x: Tensor) -> Tensor:
    """``Âx`` of the embeddings ``x`` ``[U + N, D]``; ``adjacency`` must be symmetric."""
    return _Step.apply(adjacency, x)  # type: ignore[no-untyped-call]


def layers(adjacency: Tensor, x: Tensor, n_layers: int, loop_weights: Tensor | None = None) -> Iterator[Tensor]:
    """x, Âx, … Â^L x, with L = ``n_layers``; ``loop_weights`` ``[U + N]`` are added to the diagonal of Â."""
    yield x
    for _ in range(n_layers):
        along = step(adjacency, x)
        x = along if loop_weights is None else along + loop_weights[:, None] * x
        yield x


def layer_mean(adjacency: Tensor, x: Tensor, n_layers: int) -> Tensor:
    """``(x + Âx + … + Â^L x) / (L + 1)`` of the embeddings ``x`` ``[U + N, D]``, with L = ``n_layers``."""
    return _LayerMean.apply(adjacency, x, n_layers)  # type: ignore[no-untyped-call]


def said_by_items(adjacency: Tensor, ego: Tensor, n_layers: int, item_counts: Tensor) -> tuple[Tensor, Tensor]:
    """Of the layer mean of ``ego`` ``[U + N, D]``: what a user has without any neighbour ``[U, D]``, and what each item
    adds to it ``[N, D]``, where the sum over a history of n items is divided by ``sqrt(n)``. Both are exact: layers
    above the first reach a user from the items met alone."""
    n_users = len(ego) - len(item_counts)
    below = layer_mean(adjacency, ego, n_layers - 1)[n_users:]
    share = n_layers / (n_layers + 1) * item_counts.clamp(min=1).rsqrt()
    return ego[:n_users] / (n_layers + 1), below * share[:, None]


def across(matrix: Tensor, transposed: Tensor, x: Tensor) -> Tensor:
    """``matrix @ x``, where the matrix is sparse and its transpose is there for the way back."""
    return _Across.apply(matrix, transposed, x)  # type: ignore[no-untyped-call]


class _Across(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, x: Tensor) -> Tensor:
        ctx.transposed = transposed
        return _step(matrix, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        return None, None, _step(ctx.transposed, grads[0])


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, x: Tensor) -> Tensor:
        ctx.adjacency = adjacency
        return _step(adjacency, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        return None, _step(ctx.adjacency, grads[0])


class _LayerMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, x: Tensor, n_layers: int) -> Tensor:
        ctx.adjacency, ctx.n_layers = adjacency, n_layers
        return _layer_mean(adjacency, x, n_layers)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        return None, _layer_mean(ctx.adjacency, grads[0], ctx.n_layers), None


def _step(adjacency: Tensor, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return adjacency @ x.float().contiguous()


def _layer_mean(adjacency: Tensor, x: Tensor, n_layers: int) -> Tensor:
    """By Horner's rule: ``x + Â(x + Â(x + …))``."""
    with torch.autocast(x.device.type, enabled=False):
        x = x.float().contiguous()
        total = x
        for _ in range(n_layers):
            total = torch.addmm(x, adjacency, total)
        return total / (n_layers + 1)
