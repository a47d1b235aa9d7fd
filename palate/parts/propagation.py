"""Embeddings that flow along a bipartite graph: the symmetric normalised adjacency and the mean of its layers.

With E edges between U users and N items, the adjacency Â is ``[U + N, U + N]``, users first, and
``Â[u, i] = Â[i, u] = 1 / sqrt(degree of u · degree of i)`` (He et al., LightGCN, SIGIR 2020, equations 3 to 8).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor


def normalised_adjacency(users: Tensor, items: Tensor, n_users: int, n_items: int) -> Tensor:
    """Â as a sparse CSR float32 tensor from the edges ``users``, ``items`` ``[E]``; an edge given twice counts once."""
    keys = torch.unique(users.long() * n_items + items.long())
    users, items = keys // n_items, keys % n_items
    user_degree, item_degree = torch.bincount(users, minlength=n_users), torch.bincount(items, minlength=n_items)
    weights = (user_degree[users].double() * item_degree[items]).rsqrt().float()
    by_item = torch.argsort(items, stable=True)
    degrees = torch.cat([user_degree, item_degree])
    offsets = torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])
    columns = torch.cat([items + n_users, users[by_item]])
    n = n_users + n_items
    with warnings.catch_warnings():  # torch calls its CSR layout beta, once a process
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            offsets, columns, torch.cat([weights, weights[by_item]]), size=(n, n), check_invariants=False
        )


def layer_mean(adjacency: Tensor, x: Tensor, n_layers: int) -> Tensor:
    """``(x + Âx + … + Â^L x) / (L + 1)`` of the embeddings ``x`` ``[U + N, D]``, with L = ``n_layers``."""
    return _LayerMean.apply(adjacency, x, n_layers)  # type: ignore[no-untyped-call]


class _LayerMean(torch.autograd.Function):
    """Linear and, as Â is, symmetric: the gradient is the same function, so nothing is kept and nothing transposed."""

    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, x: Tensor, n_layers: int) -> Tensor:
        ctx.adjacency, ctx.n_layers = adjacency, n_layers
        return _layer_mean(adjacency, x, n_layers)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        return None, _layer_mean(ctx.adjacency, grads[0], ctx.n_layers), None


def _layer_mean(adjacency: Tensor, x: Tensor, n_layers: int) -> Tensor:
    """By Horner's rule: ``x + Â(x + Â(x + …))``."""
    with torch.autocast(x.device.type, enabled=False):
        x = x.float().contiguous()
        total = x
        for _ in range(n_layers):
            total = torch.addmm(x, adjacency, total)
        return total / (n_layers + 1)
