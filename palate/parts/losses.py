"""Losses of recommenders as plain functions of hidden states and item tables.

Shapes: hidden ``[P, D]`` (one row a position to predict), table ``[N, D]``, targets ``[P]``, negatives ``[P, R]``
(own for each position) or ``[R]`` (shared). Every loss is a mean over positions.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LOGIT_BYTES = 64 * 2**20
"""Logits alive at once where every item is scored, at most."""
CPU_ROWS = 256
"""Rows a chunk on a CPU: enough for fast matmuls, few enough to stay in the cache (measured)."""


class _FullSoftmax(torch.autograd.Function):
    """Cross entropy over all items; a chunk of logits lives only while its loss and gradients are taken.

    Under autocast the three products take its type and are rounded to it; what is between them stays exact.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor, bias: Tensor | None, rows: int) -> Tensor:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        kind = product_kind(hidden)
        p, learns = len(hidden), any(ctx.needs_input_grad)
        grad_hidden = torch.empty_like(hidden, dtype=exact)
        grad_table = torch.zeros_like(table, dtype=exact)
        grad_bias = None if bias is None else torch.zeros_like(bias)
        # One room for all chunks: fresh pages for each would cost as much as the matmul.
        room = hidden.new_empty((min(rows, p), len(table)), dtype=exact)
        loss = hidden.new_zeros((), dtype=exact)
        hidden, table = hidden.to(kind), table.to(kind)
        for start in range(0, p, rows):
            h, target = hidden[start : start + rows], targets[start : start + rows, None]
            logits = multiply(h, table.T, room[: len(h)])
            if bias is not None:
                logits += bias
            own, top = logits.gather(1, target), logits.amax(1, keepdim=True)
            shares = torch.softmax(logits, 1, out=logits)
            # The largest share is exp(top - log-sum-exp) and never underflows, as the target's own may.
            loss += (top - shares.amax(1, keepdim=True).log() - own).sum()
            if not learns:
                continue
            shares.scatter_add_(1, target, shares.new_full(target.shape, -1.0))
            if grad_bias is not None:
                grad_bias += shares.sum(0)
            shares = shares.to(kind)
            multiply(shares, table, grad_hidden[start : start + rows])
            multiply(shares.T, h, grad_table, add=True)
        ctx.save_for_backward(grad_hidden, grad_table, grad_bias)
        return loss / p

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_table, grad_bias = ctx.saved_tensors
        scale = grads[0] / len(grad_hidden)
        return grad_hidden * scale, grad_table * scale, None, None if grad_bias is None else grad_bias * scale, None


def product_kind(x: Tensor) -> torch.dtype:
    """The type that products with ``x`` take: that of autocast where it is on, float32 or what is more exact else."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return torch.promote_types(x.dtype, torch.float32)


def chunk_rows(table: Tensor) -> int:
    """Rows of logits against all of ``table`` that one chunk holds."""
    rows = max(1, LOGIT_BYTES // (4 * max(1, len(table))))
    return min(rows, CPU_ROWS) if table.device.type == "cpu" else rows


def multiply(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> Tensor:
    """``a @ b`` written into, or added to, ``out``, which may be of a more exact type."""
    if a.dtype == out.dtype:
        return out.addmm_(a, b, beta=int(add))
    return out.add_(a @ b) if add else out.copy_(a @ b)


def full_softmax(hidden: Tensor, table: Tensor, targets: Tensor, bias: Tensor | None = None) -> Tensor:
    """``-log softmax(hidden · table + bias)[target]``, mean, never holding ``[P, N]`` at once."""
    return _FullSoftmax.apply(hidden, table, targets, bias, chunk_rows(table))  # type: ignore[no-untyped-call]


def positive_and_negatives(hidden: Tensor, table: Tensor, targets: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Scores ``[P]`` of the targets and ``[P, R]`` of the negatives; a negative that is the target becomes -inf."""
    positive = (hidden * table[targets]).sum(-1)
    if negatives.dim() == 1:
        scores = hidden @ table[negatives].T
    elif negatives.shape[1] * table.shape[1] >= len(table):  # all scores are less to hold than [P, R, D] vectors
        scores = (hidden @ table.T).gather(1, negatives)
    else:
        scores = torch.einsum("pd,prd->pr", hidden, table[negatives])
    same = negatives == targets[:, None]
    return positive, scores.masked_fill(same, -math.inf)


def sampled_softmax(
    positive: Tensor, negative: Tensor, log_q: tuple[Tensor, Tensor] | None = None, temperature: float = 1.0
) -> Tensor:
    """``-log softmax([s⁺, s⁻…] / temperature)[0]``. ``log_q``: log sampling probabilities of the target ``[P]`` and
    of the negatives (broadcast to ``[P, R]``), subtracted so that frequent negatives are not punished twice."""
    logits = torch.cat([positive[:, None], negative], dim=1) / temperature
    if log_q is not None:
        own, others = log_q
        logits = logits - torch.cat([own[:, None], others.expand_as(negative)], dim=1)
    return -F.log_softmax(logits, dim=1)[:, 0].mean()


def binary_cross_entropy(positive: Tensor, negative: Tensor) -> Tensor:
    """``-log σ(s⁺) - Σ log(1 - σ(s⁻))``, mean over positions and the ``1 + R`` terms (SASRec 2018 with R = 1)."""
    losses = -F.logsigmoid(positive) - F.logsigmoid(-negative).sum(1)
    return losses.mean() / (1 + negative.shape[1])


def gbce_beta(n_negatives: int, n_items: int, t: float) -> float:
    """The exponent β of gSASRec (Petrov & Macdonald 2023): ``β = α(t(1 - 1/α) + 1/α)``, ``α = k / (N - 1)``."""
    alpha = n_negatives / (n_items - 1)
    return alpha * (t * (1 - 1 / alpha) + 1 / alpha)


def generalised_bce(positive: Tensor, negative: Tensor, beta: float) -> Tensor:
    """gBCE: ``σ(s⁺)`` is raised to ``beta``; ``beta = 1`` is ``binary_cross_entropy``."""
    losses = -beta * F.logsigmoid(positive) - F.logsigmoid(-negative).sum(1)
    return losses.mean() / (1 + negative.shape[1])


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """Bayesian personalised ranking (Rendle et al. 2009): ``-log σ(s⁺ - s⁻)``, mean."""
    return -F.logsigmoid(positive[:, None] - negative).mean()
