"""Residual k-means: no network; each level clusters what the levels before it leave over.

The recipe of GRID (Ju et al. 2025, arXiv 2507.22224) and of OneRec (Deng et al. 2025, arXiv 2502.18965)::

    r_1 = unit(x - mean)    c_h = argmin_v ||r_h - e_hv||²    r_{h+1} = unit(r_h - e_{h c_h})

with k-means++ seeding. ``balanced`` holds every cluster at n / V items, one more or less, so that no code is crowded or
dead. Names are made to differ as RQ-VAE's are. Shapes: N items, D width, K levels, V codes a level.

Where we depart, and why: the mean of the training items is taken off first, since text vectors share a large common
part that would use up the first level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from palate.backbones.item_text import ItemText
from palate.backbones.vectors import item_vectors
from palate.core.config import Config, Part
from palate.core.errors import TrainingError
from palate.core.naming import NamesVectors, Size
from palate.core.protocols import Encoder, FloatArray
from palate.core.ragged import IntArray
from palate.core.run import Run
from palate.parts.kmeans import equal_shares, kmeans, nearest, squared_distances
from palate.parts.repair import TieBreak, name_all, name_more
from palate.parts.sinkhorn import UniformConfig


class ResidualKMeansConfig(Config):
    encoder: Part = Part(name="auto")
    """What makes vectors of the items' texts."""
    text: ItemText = ItemText()
    """How an item reads."""
    levels: int = Field(4, ge=1, le=16)
    size: Size = 0
    """V, codes of each level; 0 = as many as suit the items, at most 256."""
    normalise: bool = True
    """Give the residuals of each level unit length."""
    balanced: bool = False
    """Clusters of equal size, one item more or less."""
    rounds: int = Field(30, ge=1)
    """Of k-means, at most."""
    uniform_last: bool = False
    """Spread items that share a name evenly over the last level before they are matched."""
    uniform: UniformConfig = UniformConfig()
    tie_break: TieBreak = "match"
    """Items that share a name take free codes of the last level, or get one more token that counts them."""


class Levels:
    """``centres`` ``[K, V, D]``, the codes of each level."""

    def __init__(self, mean: Tensor, centres: Tensor, normalise: bool) -> None:
        self.mean, self.centres, self.normalise = mean, centres, normalise

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.centres.shape[1],) * len(self.centres)

    def points(self, vectors: Tensor) -> Tensor:
        """``[n, D]`` what the first level clusters."""
        return self._unit(vectors - self.mean)

    def after(self, residual: Tensor, level: int, codes: Tensor) -> Tensor:
        """``[n, D]`` what ``level`` leaves over of ``residual`` where these codes ``[n]`` were chosen."""
        return self._unit(residual - self.centres[level][codes])

    def distances(self, points: Tensor, codes: Tensor, level: int) -> Tensor:
        """``[n, V]`` squared distances at ``level`` of ``points`` that have ``codes`` above it."""
        residual = points
        for above in range(level):
            residual = self.after(residual, above, codes[:, above])
        return squared_distances(residual, self.centres[level])

    def _unit(self, residual: Tensor) -> Tensor:
        # What is left of a point that is its own centre is rounding, and stays small.
        return F.normalize(residual, dim=1, eps=1e-4) if self.normalise else residual


class ResidualKMeans(NamesVectors[ResidualKMeansConfig]):
    """``coder`` is None until fitted or loaded."""

    config_type = ResidualKMeansConfig
    item_vectors = staticmethod(item_vectors)

    def __init__(self, config: ResidualKMeansConfig | None = None, encoder: Encoder | None = None) -> None:
        super().__init__(config, encoder)
        self.coder: Levels | None = None

    def sizes(self) -> Sequence[int]:
        return [self.sized.size] * self.config.levels

    def quantise(self, vectors: FloatArray, seen: npt.NDArray[np.bool_], run: Run) -> IntArray:
        every = torch.from_numpy(vectors)
        self.coder, first = self._learn(every, torch.from_numpy(seen), torch.Generator().manual_seed(run.seed))
        codes, repair = name_all(
            self.coder, self.coder.points(every), self.drawn(1).permutation(len(vectors)), self.config.tie_break,
            self.config.uniform if self.config.uniform_last else None, first,
        )  # fmt: skip
        self.facts["repair"] = asdict(repair)
        return codes

    def quantise_new(self, vectors: FloatArray, taken: IntArray) -> IntArray:
        if self.coder is None:
            raise TrainingError("ResidualKMeans was not fitted yet: call fit or load first")
        return name_more(self.coder, self.coder.points(torch.from_numpy(vectors)), taken, self.config.tie_break)

    def _learn(self, every: Tensor, seen: Tensor, generator: torch.Generator) -> tuple[Levels, IntArray]:
        """The codes of each level, learnt from the ``seen`` vectors, and the first codes ``[N, K]`` of all."""
        config = self.sized
        mean = every[seen].mean(0)
        coder = Levels(mean, torch.zeros(config.levels, config.size, every.shape[1]), config.normalise)
        residual, codes = coder.points(every), []
        for level in range(config.levels):
            centres = kmeans(
                residual[seen], config.size, generator, rounds=config.rounds, balanced=config.balanced
            )  # fmt: skip
            coder.centres[level] = centres
            chosen = equal_shares(residual, centres) if config.balanced else nearest(residual, centres)[0]
            residual = coder.after(residual, level, chosen)
            codes.append(chosen)
        return coder, torch.stack(codes, 1).numpy()

    def state(self) -> dict[str, npt.NDArray[Any]]:
        assert self.coder is not None
        return {"mean": self.coder.mean.numpy(), "centres": self.coder.centres.numpy()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        mean, centres = torch.from_numpy(state["mean"]), torch.from_numpy(state["centres"])
        self.coder = Levels(mean, centres, self.config.normalise)
