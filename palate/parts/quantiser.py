"""Residual quantisation with learnt codebooks: a vector becomes the sum of one code vector a level.

Zeghidour et al., "SoundStream" (arXiv 2107.03312) and van den Oord et al., "Neural Discrete Representation Learning"
(arXiv 1711.00937)::

    r_0 = z    c_h = argmin_v ||r_h - e_hv||²    r_{h+1} = r_h - e_{h c_h}    z_hat = sum_h e_{h c_h}
    codebook term   mean_h ||sg(r_h) - e_{h c_h}||²      moves code vectors only
    commitment term mean_h ||r_h - sg(e_{h c_h})||²      moves the encoder only

``z_hat`` carries the gradient of ``z`` unchanged (straight-through). Shapes: n points, H levels, V codes, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from palate.parts.kmeans import kmeans, squared_distances
from palate.parts.sinkhorn import UniformConfig, sinkhorn


class Quantised(NamedTuple):
    """codes ``[n, H]``, vectors ``[n, D]``, and the two terms of the loss, both means over points, levels and width."""

    codes: Tensor
    vectors: Tensor
    codebook: Tensor
    commitment: Tensor


class ResidualQuantiser(nn.Module):
    """``codebooks`` ``[H, V, D]``; ``used`` ``[H, V]`` how often each code was chosen since the last restart."""

    used: Tensor
    steps: Tensor

    def __init__(self, levels: int, size: int, width: int, restart_steps: int = 0) -> None:
        super().__init__()
        self.codebooks = nn.Parameter(torch.randn(levels, size, width))
        self.restart_steps = restart_steps
        self.register_buffer("used", torch.zeros(levels, size, dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def begin(self, points: Tensor, generator: torch.Generator, rounds: int = 30) -> None:
        """Put each level's codes on the k-means centres of the residuals that the levels before it leave."""
        residual = points
        for codebook in self.codebooks:
            codebook.copy_(kmeans(residual, len(codebook), generator, rounds=rounds))
            residual = residual - codebook[squared_distances(residual, codebook).argmin(1)]

    def forward(self, z: Tensor, uniform: UniformConfig | None = None) -> Quantised:
        """``[n, D]`` points. With ``uniform`` the codes of the last level are spread evenly over these points."""
        residual, total = z, torch.zeros_like(z)
        codebook_term = commitment = z.new_zeros(())
        codes, residuals = [], []
        for level, codebook in enumerate(self.codebooks):
            with torch.no_grad():
                distances = squared_distances(residual.detach(), codebook)
                if uniform is not None and level == len(self.codebooks) - 1:
                    chosen = sinkhorn(distances, uniform).argmax(1)
                else:
                    chosen = distances.argmin(1)
            vectors = F.embedding(chosen, codebook)
            codebook_term = codebook_term + F.mse_loss(vectors, residual.detach())
            commitment = commitment + F.mse_loss(residual, vectors.detach())
            codes.append(chosen)
            residuals.append(residual.detach())
            residual, total = residual - vectors.detach(), total + vectors.detach()
        if self.training:
            self._count(codes, residuals)
        levels = len(self.codebooks)
        return Quantised(torch.stack(codes, 1), z + (total - z).detach(), codebook_term / levels, commitment / levels)

    @torch.no_grad()
    def distances(self, points: Tensor, codes: Tensor, level: int) -> Tensor:
        """``[n, V]`` squared distances at ``level`` of ``points`` ``[n, D]`` that have ``codes`` ``[n, >= level]``."""
        residual = points
        for above in range(level):
            residual = residual - self.codebooks[above][codes[:, above]]
        return squared_distances(residual, self.codebooks[level])

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.codebooks.shape[1],) * self.codebooks.shape[0]

    @torch.no_grad()
    def _count(self, codes: list[Tensor], residuals: list[Tensor]) -> None:
        """Remember which codes were chosen; every ``restart_steps`` put those never chosen on points of this batch."""
        for level, chosen in enumerate(codes):
            self.used[level] += torch.bincount(chosen, minlength=self.used.shape[1])
        self.steps += 1
        if not self.restart_steps or int(self.steps) % self.restart_steps:
            return
        for level, residual in enumerate(residuals):
            dead = torch.nonzero(self.used[level] == 0).flatten()
            drawn = torch.randint(len(residual), (len(dead),), device=residual.device)
            self.codebooks[level, dead] = residual[drawn]
        self.used.zero_()
