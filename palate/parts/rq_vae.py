"""An autoencoder whose middle is quantised level by level: what names items by their texts and users by their reviews.

::

    z = Enc(x)    z_hat = sum_h e_{h c_h}    L = ||x - Dec(z_hat)||² + weight (codebook + beta commitment)

with the two terms of ``parts.quantiser`` (RQ-VAE as in TIGER, Rajput et al. 2023, arXiv 2305.05065). Errors are means
over the width, so that ``weight`` means the same for every width. The training loop is passed in by whoever names.
Shapes: n points, D width of the vectors, K levels, V codes a level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from palate.core.config import Config
from palate.core.errors import TrainingError
from palate.core.naming import Size
from palate.core.ragged import IntArray
from palate.core.training import TrainingConfig
from palate.parts.kmeans import CHUNK
from palate.parts.quantiser import ResidualQuantiser
from palate.parts.repair import TieBreak
from palate.parts.sinkhorn import UniformConfig

GOOD_USAGE = 0.8
"""Share of a level's codes in use below which a fit says so."""


class QuantiserConfig(Config):
    levels: int = Field(4, ge=1, le=16)
    size: Size = 0
    """V, codes of each level; 0 = as many as suit what is named, at most 256."""
    width: int = Field(32, ge=1)
    """Of the code vectors."""
    hidden: tuple[int, ...] = (256, 128)
    """Layers of the encoder between vector and code width; the decoder mirrors them."""
    beta: float = Field(0.25, ge=0)
    """Weight of the commitment term beside the codebook term."""
    weight: float = Field(1.0, gt=0)
    """Of both terms beside the reconstruction."""
    uniform_last: bool = True
    """Spread the last level's codes evenly, in repair and, with batches of as many as a level has codes, in training:
    over fewer evenness would mean nothing."""
    uniform: UniformConfig = UniformConfig()
    tie_break: TieBreak = "match"
    """Those that share a name take free codes of the last level, or get one more token that counts them."""
    start: Literal["k-means", "random"] = "k-means"
    restart_epochs: int = Field(5, ge=0)
    """Codes that nothing chose for so long start again; 0 = never."""
    least_usage: float = Field(0.02, ge=0, le=1)
    """Share of a level's codes that must be in use; below it the codebook has collapsed and training stops. Below four
    fifths a fit says so."""
    batch_size: int = Field(1024, ge=1)
    training: TrainingConfig = TrainingConfig(
        epochs=60, learning_rate=3e-3, weight_decay=1e-4, clip_norm=1.0, judge_every=5
    )


class Standardises(Protocol):
    """What keeps the mean and the deviation ``[D]`` of the vectors it reads."""

    mean: Tensor
    deviation: Tensor


def measure(network: Standardises, vectors: Tensor) -> None:
    """Standardise by ``vectors`` ``[n, D]`` from now on. A column that never changes carries nothing."""
    network.mean.copy_(vectors.mean(0))
    deviation = vectors.std(0, correction=0)
    network.deviation.copy_(torch.where(deviation > 1e-6 * deviation.max(), deviation, torch.inf))


class Network(nn.Module):
    """``[n, D]`` standardised vectors → codes and reconstruction."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: QuantiserConfig, n_columns: int, restart_steps: int = 0) -> None:
        super().__init__()
        self.config = config
        widths = (n_columns, *config.hidden, config.width)
        self.encoder, self.decoder = _layers(widths), _layers(widths[::-1])
        self.quantiser = ResidualQuantiser(config.levels, config.size, config.width, restart_steps)
        self.register_buffer("mean", torch.zeros(n_columns))
        self.register_buffer("deviation", torch.ones(n_columns))

    @torch.no_grad()
    def measure(self, vectors: Tensor) -> None:
        """Standardise by these from now on."""
        measure(self, vectors)

    @torch.no_grad()
    def begin(self, vectors: Tensor, seed: int) -> None:
        """Measure, and put the codebooks on k-means centres where the settings say so."""
        self.measure(vectors)
        if self.config.start == "k-means":
            latent, device = self.latent(vectors).cpu(), vectors.device
            self.quantiser.cpu().begin(latent, torch.Generator().manual_seed(seed))
            self.to(device)

    def latent(self, vectors: Tensor) -> Tensor:
        """``[n, width]`` what is quantised."""
        return self.encoder((vectors - self.mean) / self.deviation)

    def loss(self, vectors: Tensor) -> Tensor:
        """Of a batch ``[n, D]``. What is to be rebuilt stands still: vectors that learn may not come to meet it."""
        inputs = (vectors - self.mean) / self.deviation
        config = self.config
        # A batch smaller than the codebook cannot use all of it: evenness would mean nothing.
        even = config.uniform_last and len(vectors) >= config.size
        quantised = self.quantiser(self.encoder(inputs), config.uniform if even else None)
        terms = quantised.codebook + config.beta * quantised.commitment
        return F.mse_loss(self.decoder(quantised.vectors), inputs.detach()) + config.weight * terms

    @torch.no_grad()
    def quality(self, vectors: Tensor) -> tuple[float, IntArray]:
        """The mean squared error of standardised ``vectors`` rebuilt from their nearest codes, and the codes in use
        ``[K]``."""
        used = torch.zeros(self.quantiser.codebooks.shape[:2], dtype=torch.bool, device=vectors.device)
        error = 0.0
        for part in torch.split(vectors, CHUNK):
            inputs = (part - self.mean) / self.deviation
            quantised = self.quantiser(self.encoder(inputs))
            error += float((self.decoder(quantised.vectors) - inputs).square().sum())
            for level, chosen in enumerate(quantised.codes.T):
                used[level, chosen] = True
        return error / vectors.numel(), used.sum(1).cpu().numpy()


def _layers(widths: Sequence[int]) -> nn.Sequential:
    steps: list[nn.Module] = []
    for before, after in pairwise(widths):
        layer = nn.Linear(before, after)
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
        steps += [layer, nn.ReLU()]
    return nn.Sequential(*steps[:-1])


class Points:
    """Shuffled batches of what is learnt from, ``[n, …]``: a pure function of (seed, epoch)."""

    def __init__(self, points: Tensor, batch_size: int, seed: int) -> None:
        self.points, self.batch_size, self.seed = points, batch_size, seed

    def __len__(self) -> int:
        return -(-len(self.points) // self.batch_size)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Tensor]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.points))
        for start in range(skip * self.batch_size, len(order), self.batch_size):
            yield self.points[torch.from_numpy(order[start : start + self.batch_size])]


def remarks(used: IntArray, n_vectors: int, distinct: int, config: QuantiserConfig) -> list[str]:
    """What a reader of the names should know of a fit: levels that use ``used`` ``[K]`` codes where more could be, and
    spreading that batches were too small for."""
    notes = []
    could = min(config.size, distinct)
    for level, count in enumerate(used.tolist(), start=1):
        if count < GOOD_USAGE * could:
            notes.append(
                f"level {level} uses {count:,} of the {could:,} codes that it could ({count / could:.0%}): fewer codes "
                "(size), restart_epochs=1 or more epochs may spread better"
            )
    largest = min(config.batch_size, n_vectors)
    if config.uniform_last and largest < config.size:
        notes.append(
            f"the last level was not spread in training, since no batch (of {largest:,}) has as many as a level has "
            f"codes ({config.size:,}); names were spread all the same"
        )
    return notes


def check_usage(used: IntArray, distinct: int, config: QuantiserConfig) -> None:
    """Raise ``TrainingError`` where a level uses ``used`` ``[K]`` codes, too few to tell ``distinct`` vectors apart; a
    handful of vectors shows nothing."""
    # Where the first level alone can tell all vectors apart, nothing is left for the others to do.
    levels = config.levels if distinct > 2 * config.size else 1
    for level, count in enumerate(used[:levels]):
        if distinct > 8 and count < max(2.0, config.least_usage * min(config.size, distinct)):
            raise TrainingError(
                f"the codebook of level {level + 1} collapsed: {count} of {config.size} codes are in use for "
                f"{distinct:,} different vectors; try start=k-means, restart_epochs=1 or a smaller "
                f"training.learning_rate (now {config.training.learning_rate:g})"
            )
