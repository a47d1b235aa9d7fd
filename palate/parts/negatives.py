"""Items to compare a target with, drawn uniformly or by popularity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


class Popularity(nn.Module):
    """How often each item occurs in training, as draws, as log-probabilities and as the answer for a newcomer.

    ``log_share`` ``[N]`` is the log of each item's share of events, every item counted once more than it occurred, so
    that an unseen item can be drawn and scored. Saved with the network.
    """

    log_share: Tensor

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.register_buffer("log_share", torch.full((n_items,), -float(np.log(max(n_items, 1)))))

    def count(self, item_counts: np.ndarray) -> None:
        """Take the training counts ``[N]``."""
        counts = torch.from_numpy(np.asarray(item_counts, dtype=np.float64)) + 1
        self.log_share.copy_((counts / counts.sum()).log())

    def draw(self, shape: Sequence[int], *, by_popularity: bool) -> Tensor:
        """Item rows of the given shape, each drawn on its own, from torch's present random state."""
        n_items, device = len(self.log_share), self.log_share.device
        if not by_popularity:
            return torch.randint(n_items, tuple(shape), device=device)
        edges = self.log_share.exp().cumsum(0)
        rows = torch.searchsorted(edges, torch.rand(tuple(shape), device=device) * edges[-1])
        return rows.clamp_(max=n_items - 1)
