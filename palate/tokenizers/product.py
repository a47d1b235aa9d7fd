"""Product quantisation: the vector is cut into K pieces, and each piece gets its own code; places have no order.

Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", PAMI 2011, with the rotation of Ge et al.,
"Optimized product quantization", CVPR 2013: rotation and codes are improved in turn. Long names of this kind are what
RPG (Hou et al. 2025, arXiv 2506.05781) predicts in one step. Shapes: N items, D width, K pieces, V codes a piece.

Where we depart, and why: vectors are centred, and a width that K does not divide is filled up with zeros, so that any
encoder fits.
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
from palate.parts.kmeans import kmeans, nearest, squared_distances
from palate.parts.repair import TieBreak, name_all, name_more


class ProductConfig(Config):
    encoder: Part = Part(name="auto")
    """What makes vectors of the items' texts."""
    text: ItemText = ItemText()
    """How an item reads."""
    levels: int = Field(8, ge=1, le=64)
    """K, pieces."""
    size: Size = 0
    """V, codes of each piece; 0 = as many as suit the items, at most 256."""
    rotations: int = Field(5, ge=0)
    """Times the rotation is improved; 0 cuts the vectors as they are."""
    rounds: int = Field(30, ge=1)
    """Of k-means, at most."""
    tie_break: TieBreak = "match"
    """Items that share a name take free codes of the last piece, or get one more token that counts them."""


class Pieces:
    """``centres`` ``[K, V, d]`` with d = D / K, ``rotation`` ``[K d, K d]``, ``mean`` ``[D]``."""

    def __init__(self, mean: Tensor, rotation: Tensor, centres: Tensor) -> None:
        self.mean, self.rotation, self.centres = mean, rotation, centres

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.centres.shape[1],) * len(self.centres)

    def points(self, vectors: Tensor) -> Tensor:
        """``[n, K d]`` centred and rotated."""
        return F.pad(vectors - self.mean, (0, len(self.rotation) - vectors.shape[1])) @ self.rotation

    def piece(self, points: Tensor, place: int) -> Tensor:
        """``[n, d]``."""
        width = self.centres.shape[2]
        return points[:, place * width : (place + 1) * width].contiguous()

    def distances(self, points: Tensor, codes: Tensor, level: int) -> Tensor:
        """``[n, V]`` squared distances of one piece; the codes of the others do not matter."""
        return squared_distances(self.piece(points, level), self.centres[level])

    def rebuilt(self, points: Tensor) -> Tensor:
        """``[n, K d]`` each piece replaced by its nearest centre."""
        return torch.cat([c[nearest(self.piece(points, at), c)[0]] for at, c in enumerate(self.centres)], 1)


class Product(NamesVectors[ProductConfig]):
    """``coder`` is None until fitted or loaded."""

    config_type = ProductConfig
    item_vectors = staticmethod(item_vectors)
    ordered = False

    def __init__(self, config: ProductConfig | None = None, encoder: Encoder | None = None) -> None:
        super().__init__(config, encoder)
        self.coder: Pieces | None = None

    def sizes(self) -> Sequence[int]:
        return [self.sized.size] * self.config.levels

    def quantise(self, vectors: FloatArray, seen: npt.NDArray[np.bool_], run: Run) -> IntArray:
        every = torch.from_numpy(vectors)
        self.coder = learn(every[torch.from_numpy(seen)], self.sized, torch.Generator().manual_seed(run.seed))
        order = self.drawn(1).permutation(len(vectors))
        codes, repair = name_all(self.coder, self.coder.points(every), order, self.config.tie_break)
        self.facts["repair"] = asdict(repair)
        return codes

    def quantise_new(self, vectors: FloatArray, taken: IntArray) -> IntArray:
        if self.coder is None:
            raise TrainingError("Product was not fitted yet: call fit or load first")
        return name_more(self.coder, self.coder.points(torch.from_numpy(vectors)), taken, self.config.tie_break)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        assert self.coder is not None
        return {name: getattr(self.coder, name).numpy() for name in ("mean", "rotation", "centres")}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        self.coder = Pieces(*(torch.from_numpy(state[name]) for name in ("mean", "rotation", "centres")))


def learn(vectors: Tensor, config: ProductConfig, generator: torch.Generator) -> Pieces:
    """Centres of each piece of ``vectors`` ``[n, D]``, and the rotation under which they fit best.

    A rotation is improved from a few rounds of k-means each time; the last centres are learnt in full.
    """
    width = -(-vectors.shape[1] // config.levels)
    empty = torch.zeros(config.levels, config.size, width)
    coder = Pieces(vectors.mean(0), torch.eye(config.levels * width), empty)
    centred = coder.points(vectors)
    for _ in range(config.rotations):
        coder.centres = _centres(coder, centred @ coder.rotation, config.size, generator, rounds=4)
        left, _, right = torch.linalg.svd(centred.T @ coder.rebuilt(centred @ coder.rotation))
        coder.rotation = (left @ right).contiguous()
    coder.centres = _centres(coder, centred @ coder.rotation, config.size, generator, config.rounds)
    return coder


def _centres(coder: Pieces, points: Tensor, size: int, generator: torch.Generator, rounds: int) -> Tensor:
    pieces = [kmeans(coder.piece(points, at), size, generator, rounds=rounds) for at in range(len(coder.centres))]
    return torch.stack(pieces)
