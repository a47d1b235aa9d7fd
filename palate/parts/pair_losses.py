"""Losses of systems that hold a vector for each user and each item, on batches of events.

Shapes: U users, N items, D width, b events of a batch, R negatives of each. Vectors are whole tables, ``[U, D]`` and
``[N, D]``: who occurs twice in a batch is computed once. Every loss is a mean over events.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from palate.data.pairs import PairBatch
from palate.parts import losses


def ranking(
    users: Tensor, items: Tensor, batch: PairBatch, negatives: Tensor | None, temperature: float = 1.0
) -> Tensor:  # fmt: skip
    """Cross entropy over all items, scores divided by ``temperature``; with ``negatives`` ``[b, R]`` BPR instead."""
    if negatives is None:
        return full_softmax(users, items / temperature, batch)
    user = F.embedding(batch.users, users)
    positive = (user * F.embedding(batch.items, items)).sum(-1)
    negative = (user[:, None] * F.embedding(negatives, items)).sum(-1)
    return losses.bpr(positive, negative)


def full_softmax(users: Tensor, items: Tensor, batch: PairBatch) -> Tensor:
    """``-log softmax(e_u · e_i over all items)[i]``; logits once a user, not once an event."""
    asked, counts = torch.unique(batch.users, return_counts=True)
    own = (F.embedding(batch.users, users) * F.embedding(batch.items, items)).sum()
    return (log_partitions(F.embedding(asked, users), items, counts) - own) / len(batch)


ROUGH_TEMPERATURE = 0.2
"""From here on products of InfoNCE may take a lower type."""
Among = Literal["all", "batch"]
"""Which nodes one is told from: all of them, or each node of the batch once."""


def two_views(first: Tensor, second: Tensor, batch_rows: Tensor, temperature: float, among: Among) -> Tensor:
    """InfoNCE of the same nodes in two views ``[n, D]``: each row of the batch is found again among the nodes of the
    second. Told from ``all``, the mean is over ``batch_rows`` ``[b]``; in the ``batch``, over its distinct rows."""
    rows, counts = torch.unique(batch_rows, return_counts=True)
    anchors = F.embedding(rows, first)
    if among == "all":
        return info_nce(anchors, second, rows, temperature, counts)
    return info_nce(anchors, F.embedding(rows, second), torch.arange(len(rows), device=rows.device), temperature)


def info_nce(
    anchors: Tensor,
    keys: Tensor,
    own: Tensor,
    temperature: float,
    weights: Tensor | None = None,
    key_counts: Tensor | None = None,
) -> Tensor:
    """``-cos(a, k_own) / τ + log Σ_j c_j exp(cos(a, k_j) / τ)``, mean over anchors ``[m, D]`` weighted by ``weights``.

    ``own`` ``[m]`` is the row of each anchor's key among ``keys`` ``[n, D]``; ``key_counts`` ``[n]`` are the c_j, 1
    where not given. No anchor, no loss: 0. Below ``ROUGH_TEMPERATURE`` autocast is not followed: what rounding adds to
    a logit grows as 1 / τ, and would be all that is left of a loss that is nearly 0.
    """
    if not len(anchors):
        return anchors.sum() * 0
    weights = torch.ones_like(own) if weights is None else weights
    anchors, keys = F.normalize(anchors.float(), dim=-1) / temperature, F.normalize(keys.float(), dim=-1)
    alike = ((anchors * F.embedding(own, keys)).sum(-1) * weights).sum()
    bias = None if key_counts is None else key_counts.log()
    device = anchors.device.type
    rough = temperature >= ROUGH_TEMPERATURE and torch.is_autocast_enabled(device)
    with torch.autocast(device, torch.get_autocast_dtype(device), enabled=rough):
        return (log_partitions(anchors, keys, weights, bias) - alike) / weights.sum()


def log_partitions(users: Tensor, items: Tensor, weights: Tensor, bias: Tensor | None = None) -> Tensor:
    """``sum over u of w_u log(sum over i of exp(e_u · e_i + bias_i))``, never holding ``[U, N]`` at once; ``bias``
    ``[N]`` is given, not learnt."""
    return _LogPartitions.apply(users, items, weights, bias, losses.chunk_rows(items))  # type: ignore[no-untyped-call]


class _LogPartitions(torch.autograd.Function):
    """Each chunk of logits lives only while its value and gradients are taken.

    Under autocast the three products take its type and are rounded to it; what is between them stays exact.
    """

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, weights: Tensor, bias: Tensor | None, rows: int) -> Tensor:
        kind, exact = losses.product_kind(users), torch.promote_types(users.dtype, torch.float32)
        value = users.new_zeros((), dtype=exact)
        grad_users, grad_items = torch.empty_like(users, dtype=exact), torch.zeros_like(items, dtype=exact)
        room = users.new_empty((min(rows, len(users)), len(items)), dtype=exact)
        users, items = users.to(kind), items.to(kind)
        for start in range(0, len(users), rows):
            part, weight = users[start : start + rows], weights[start : start + rows, None]
            logits = losses.multiply(part, items.T, room[: len(part)])
            if bias is not None:
                logits += bias
            top = logits.amax(1, keepdim=True)
            total = logits.sub_(top).exp_().sum(1, keepdim=True)
            value += (weight * (total.log() + top)).sum()
            shares = logits.mul_(weight / total).to(kind)
            losses.multiply(shares, items, grad_users[start : start + rows])
            losses.multiply(shares.T, part, grad_items, add=True)
        ctx.save_for_backward(grad_users, grad_items)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_users, grad_items = ctx.saved_tensors
        return grad_users * grads[0], grad_items * grads[0], None, None, None
