"""Attention in rows that branch: a trunk that is read once, and branches that see a beginning of it and themselves.

Shapes: b rows, S = T + M L tokens of a row: a trunk of T and M branches of L tokens each, all padded at their ends;
H heads, d width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Branching:
    """How rows of one batch branch.

    trunk  T
    read   ``[b, M]`` how many tokens of the trunk each branch sees; 1 where a row has fewer branches
    """

    trunk: int
    read: Tensor

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, dropout: float = 0.0, **rest: object) -> Tensor:
        """Softmax attention ``[b * S, H, d]`` three times → ``[b * S, H, d]``: in the trunk to what stands before, in a
        branch to what it sees of the trunk and to what stands before in itself. No pair that is not seen is scored but
        those of a branch with the rest of its trunk. A share ``dropout`` of the weights is dropped."""
        b, m = self.read.shape
        q, k, v = (x.view(b, -1, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        q_trunk, k_trunk, v_trunk = (x[:, :, : self.trunk] for x in (q, k, v))
        # Rows are short: the library's fused attention takes longer than two products.
        q_trunk = q_trunk * q.shape[-1] ** -0.5
        weights = torch.softmax(q_trunk @ k_trunk.mT + self.later(self.trunk), -1).to(v.dtype)
        mixed = F.dropout(weights, dropout) @ v_trunk
        q_, k_, v_ = (x[:, :, self.trunk :].reshape(b, x.shape[1], m, -1, x.shape[3]) for x in (q, k, v))
        q_ = q_ * q.shape[-1] ** -0.5
        depth = q_.shape[3]
        shared = (q_.flatten(2, 3) @ k_trunk.mT).view(b, -1, m, depth, self.trunk) + self.hidden[:, None, :, None, :]
        own = q_ @ k_.mT + self.later(depth)
        weights = F.dropout(torch.softmax(torch.cat([shared, own], -1), -1).to(v.dtype), dropout)
        of_trunk = weights[..., : self.trunk].flatten(2, 3) @ v_trunk
        of_own = (weights[..., self.trunk :] @ v_).flatten(2, 3)
        return torch.cat([mixed, of_trunk + of_own], 2).transpose(1, 2).flatten(0, 1)

    @cached_property
    def hidden(self) -> Tensor:
        """``[b, M, T]`` -inf where a branch does not see the trunk, 0 elsewhere."""
        past = torch.arange(self.trunk, device=self.read.device) >= self.read[..., None]
        return torch.zeros(past.shape, device=past.device).masked_fill_(past, -torch.inf)

    def later(self, depth: int) -> Tensor:
        """``[L, L]`` -inf for what stands later, 0 elsewhere."""
        return torch.full((depth, depth), -torch.inf, device=self.read.device).triu_(1)

    def seen(self, n_tokens: int) -> Tensor:
        """``[b, S, S]`` whether a token sees another, for models that take no attention of ours."""
        at = torch.arange(n_tokens, device=self.read.device)
        branch = torch.where(at < self.trunk, -1, (at - self.trunk) // self.depth(n_tokens))
        read = torch.where(at < self.trunk, at + 1, self.read[:, branch.clamp(min=0)])
        shared = (at < self.trunk) & (at < read[..., None])
        own = (branch[:, None] == branch) & (branch >= 0) & (at <= at[:, None])
        return shared | own

    def depth(self, n_tokens: int) -> int:
        """L."""
        return (n_tokens - self.trunk) // self.read.shape[1]
