"""A masked auto-encoder of node features: some are hidden behind a learnt token, and a decoder must say them again.

After GraphMAE (Hou et al., KDD 2022, arXiv 2205.10803): the error is the scaled cosine error ``(1 - cos)^γ``. Shapes: n
nodes, S width of features, D width of encoded nodes, m hidden nodes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MaskedFeatures(nn.Module):
    """Token and decoder of one kind of node."""

    def __init__(self, width: int, feature_width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(feature_width))
        self.decoder = nn.Sequential(nn.Linear(width, feature_width), nn.LeakyReLU())

    def hide(self, features: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """A fresh copy of ``features`` ``[..., n, S]`` with the token at some nodes, and those nodes ``[m]``."""
        n = features.shape[-2]
        hidden = torch.randperm(n, device=features.device)[: round(rate * n)]
        flags = torch.zeros(n, dtype=torch.bool, device=features.device)
        flags[hidden] = True
        return torch.where(flags[:, None], self.token, features), hidden

    def loss(self, encoded: Tensor, features: Tensor, known: Tensor, gamma: float) -> Tensor:
        """``(1 - cos(decoded, feature))^γ``, mean over the nodes that are ``known`` ``[...]``; no such node, no loss.
        ``encoded`` is ``[..., D]``, ``features`` ``[..., S]``."""
        error = (1 - F.cosine_similarity(self.decoder(encoded).float(), features, dim=-1)) ** gamma
        return (error * known).sum() / known.sum().clamp(min=1)
