"""BPR over events and, beside them, pairs of items that somebody chose for a user: one to like, one not to.

Shapes: b events of a batch, R negatives of each, m = b + chosen pairs, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from palate.data.pairs import PairBatch, Unmet


@dataclass(frozen=True, eq=False)
class Triplets:
    """Events first, with R negatives each, then chosen pairs, with one."""

    batch: PairBatch
    negatives: Tensor
    chosen_users: Tensor
    liked: Tensor
    disliked: Tensor

    @classmethod
    def drawn(cls, batch: PairBatch, unmet: Unmet, negatives: int, chosen: Tensor, share: float) -> Triplets:
        """The events of a batch, and for ``share`` times as many of their users, drawn evenly, the pair in ``chosen``
        ``[U, 2]``; a user without one (-1) adds nothing. Without a share nothing is drawn."""
        others, users = unmet.draw(batch.users, negatives), batch.users[:0]
        if share:
            n = min(len(batch), round(share * len(batch)))
            users = batch.users[torch.randperm(len(batch), device=batch.users.device)[:n]]
            users = users[chosen[users, 0] >= 0]
        liked, disliked = chosen[users].unbind(1)
        return cls(batch, others, users, liked, disliked)

    def losses(self, users: Tensor, items: Tensor) -> Tensor:
        """``[m]`` ``-log σ(s⁺ - s⁻)``, mean over the negatives of an event."""
        user, positive = F.embedding(self.batch.users, users), F.embedding(self.batch.items, items)
        others = F.embedding(self.negatives, items)
        margin = (user * positive).sum(-1, keepdim=True) - (user[:, None] * others).sum(-1)
        pair = F.embedding(self.liked, items) - F.embedding(self.disliked, items)
        chosen = (F.embedding(self.chosen_users, users) * pair).sum(-1)
        return torch.cat([F.softplus(-margin).mean(1), F.softplus(-chosen)])
