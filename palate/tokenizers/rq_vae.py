"""RQ-VAE: an autoencoder whose middle is quantised level by level; an item's name is its row of codes.

The semantic ids of TIGER (Rajput et al. 2023, arXiv 2305.05065) and, with ``uniform_last``, the item index of LC-Rec
(Zheng et al. 2024, arXiv 2311.09049)::

    z = Enc(x)    z_hat = sum_h e_{h c_h}    L = ||x - Dec(z_hat)||² + weight (codebook + beta commitment)

with the two terms of ``parts.quantiser``. Codebooks begin on k-means centres. ``uniform_last`` chooses the last level's
codes by Sinkhorn in training and repair, so that few items share a name in the first place; ``repair`` makes names
differ in any case. Shapes: N items, D width of the vectors, K levels (and a tie-break), V codes a level.

Where we depart, and why:
- Vectors are standardised by the mean and the deviation of the training items': raw ones make codebooks collapse.
- k-means starts from all training items, not from the first batch, and codes that nothing chose for
  ``restart_epochs`` move to points of the batch. A codebook that collapses all the same stops training.
- Levels are averaged in the two terms, as in the public code of LC-Rec, and errors over the width, so that ``weight``
  means the same for every width. A constant learning rate and an epoch count that fits a laptop are the default;
  ``paper()`` and ``lc_rec()`` have the published lengths, the latter with its linear fall.
- ``size`` follows the number of items where it is left open; the published presets say 256.
- The network kept is the one of the least reconstruction error among the looks; LC-Rec keeps the one of the fewest
  collisions, of which repair leaves none in any case.
- After LC-Rec's repair rounds, items that still share a name are matched to free codes (``tie_break="match"``), or
  get TIGER's counter as one more token (``"counter"``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from palate.backbones.item_text import ItemText
from palate.backbones.vectors import item_vectors
from palate.core import store
from palate.core.config import Config, Part
from palate.core.errors import TrainingError
from palate.core.naming import NamesVectors, Size
from palate.core.protocols import Encoder, FloatArray
from palate.core.ragged import IntArray
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.parts.kmeans import CHUNK
from palate.parts.quantiser import ResidualQuantiser
from palate.parts.repair import TieBreak, name_all, name_more
from palate.parts.sinkhorn import UniformConfig
from palate.training.loop import optimise, seeded

GOOD_USAGE = 0.8
"""Share of a level's codes in use below which the facts of a fit say so."""


class RQVAEConfig(Config):
    encoder: Part = Part(name="auto")
    """What makes vectors of the items' texts."""
    text: ItemText = ItemText()
    """How an item reads."""
    levels: int = Field(4, ge=1, le=16)
    size: Size = 0
    """V, codes of each level; 0 = as many as suit the items, at most 256."""
    width: int = Field(32, ge=1)
    """Of the code vectors."""
    hidden: tuple[int, ...] = (256, 128)
    """Layers of the encoder between vector and code width; the decoder mirrors them."""
    beta: float = Field(0.25, ge=0)
    """Weight of the commitment term beside the codebook term."""
    weight: float = Field(1.0, gt=0)
    """Of both terms beside the reconstruction."""
    uniform_last: bool = True
    """Spread the last level's codes evenly, in repair and, where a batch has as many items as a level codes, in
    training: over fewer items evenness would mean nothing."""
    uniform: UniformConfig = UniformConfig()
    tie_break: TieBreak = "match"
    """Items that share a name take free codes of the last level, or get one more token that counts them."""
    start: Literal["k-means", "random"] = "k-means"
    restart_epochs: int = Field(5, ge=0)
    """Codes that nothing chose for so long start again; 0 = never."""
    least_usage: float = Field(0.02, ge=0, le=1)
    """Share of a level's codes that must be in use; below it the codebook has collapsed and training stops. Below four
    fifths the facts of the fit say so, and ``palate names`` with them."""
    batch_size: int = Field(1024, ge=1)
    training: TrainingConfig = TrainingConfig(
        epochs=60, learning_rate=3e-3, weight_decay=1e-4, clip_norm=1.0, judge_every=5
    )


class Network(nn.Module):
    """``[n, D]`` standardised vectors → codes and reconstruction."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: RQVAEConfig, n_columns: int, restart_steps: int = 0) -> None:
        super().__init__()
        widths = (n_columns, *config.hidden, config.width)
        self.encoder, self.decoder = _layers(widths), _layers(widths[::-1])
        self.quantiser = ResidualQuantiser(config.levels, config.size, config.width, restart_steps)
        self.register_buffer("mean", torch.zeros(n_columns))
        self.register_buffer("deviation", torch.ones(n_columns))

    @torch.no_grad()
    def measure(self, vectors: Tensor) -> None:
        """Standardise by these from now on. A column that never changes carries nothing."""
        self.mean.copy_(vectors.mean(0))
        deviation = vectors.std(0, correction=0)
        self.deviation.copy_(torch.where(deviation > 1e-6 * deviation.max(), deviation, torch.inf))

    def latent(self, vectors: Tensor) -> Tensor:
        """``[n, width]`` what is quantised."""
        return self.encoder((vectors - self.mean) / self.deviation)

    def loss(self, vectors: Tensor, config: RQVAEConfig) -> Tensor:
        """What a batch ``[n, D]`` teaches: the error of the reconstruction and ``weight`` times the two terms."""
        inputs = (vectors - self.mean) / self.deviation
        even = config.uniform_last and len(vectors) >= config.size
        quantised = self.quantiser(self.encoder(inputs), config.uniform if even else None)
        terms = quantised.codebook + config.beta * quantised.commitment
        return F.mse_loss(self.decoder(quantised.vectors), inputs) + config.weight * terms

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


class Items:
    """Shuffled batches of training vectors, a pure function of (seed, epoch)."""

    def __init__(self, vectors: Tensor, batch_size: int, seed: int) -> None:
        self.vectors, self.batch_size, self.seed = vectors, batch_size, seed

    def __len__(self) -> int:
        return -(-len(self.vectors) // self.batch_size)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Tensor]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.vectors))
        for start in range(skip * self.batch_size, len(order), self.batch_size):
            yield self.vectors[torch.from_numpy(order[start : start + self.batch_size])]


class RQVAE(NamesVectors[RQVAEConfig]):
    """``network`` is None until fitted or loaded."""

    config_type = RQVAEConfig
    item_vectors = staticmethod(item_vectors)

    def __init__(self, config: RQVAEConfig | None = None, encoder: Encoder | None = None) -> None:
        super().__init__(config, encoder)
        self.network: Network | None = None

    def sizes(self) -> Sequence[int]:
        return [self.sized.size] * self.config.levels

    def quantise(self, vectors: FloatArray, seen: npt.NDArray[np.bool_], run: Run) -> IntArray:
        self.network = None
        every = torch.from_numpy(vectors)
        with seeded(run):
            self.network = self._learn(every[torch.from_numpy(seen)], run)
        codes, repair = name_all(
            self.network.quantiser, self._points(every), self.drawn(1).permutation(len(vectors)),
            self.config.tie_break, self.config.uniform if self.config.uniform_last else None,
        )  # fmt: skip
        self.facts["repair"] = asdict(repair)
        return codes

    def quantise_new(self, vectors: FloatArray, taken: IntArray) -> IntArray:
        points = self._points(torch.from_numpy(vectors))
        return name_more(self._fitted().quantiser, points, taken, self.config.tie_break)

    def _learn(self, vectors: Tensor, run: Run) -> Network:
        config = self.sized
        batches = Items(vectors.to(run.device), config.batch_size, run.seed)
        network = Network(config, vectors.shape[1], config.restart_epochs * len(batches)).to(run.device)
        network.measure(batches.vectors)
        if config.start == "k-means":
            with torch.no_grad():
                latent = network.latent(batches.vectors).cpu()
                network.quantiser.cpu().begin(latent, torch.Generator().manual_seed(run.seed))
                network.to(run.device)

        distinct = len(torch.unique(vectors, dim=0))

        def look() -> float:
            """Minus the error of the reconstruction from the nearest codes."""
            error, used = network.quality(batches.vectors)
            check_usage(used, distinct, config)
            return -error

        def loss(batch: Tensor) -> Tensor:
            return network.loss(batch, config)

        # Which code is nearest hangs on small differences, and the network is small: never in half precision.
        outcome = optimise(network, batches, loss, replace(run, precision="fp32"), config.training, look)
        self.facts["training"] = outcome.facts()
        network = network.cpu().eval()
        self.facts["notes"] = remarks(network.quality(vectors)[1], len(vectors), distinct, config)
        return network

    def _points(self, vectors: Tensor) -> Tensor:
        network = self._fitted()
        with torch.no_grad():
            return torch.cat([network.latent(part) for part in torch.split(vectors, CHUNK)])

    def _fitted(self) -> Network:
        if self.network is None:
            raise TrainingError("RQVAE was not fitted yet: call fit or load first")
        return self.network

    def state(self) -> dict[str, npt.NDArray[Any]]:
        return {name: tensor.numpy() for name, tensor in self._fitted().state_dict().items()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]], stored: store.Stored) -> None:
        super().restore(state, stored)
        weights = {name: torch.from_numpy(array) for name, array in state.items()}
        with seeded(Run()):  # its first weights are drawn, and the random state is the caller's
            self.network = Network(self.sized, len(weights["mean"]))
        self.network.load_state_dict(weights)
        self.network.eval()


def remarks(used: IntArray, n_vectors: int, distinct: int, config: RQVAEConfig) -> list[str]:
    """What a reader of the names should know of a fit: levels that use ``used`` ``[K]`` codes where more could be, and
    spreading that batches were too small for."""
    notes = []
    could = min(config.size, distinct)
    for level, count in enumerate(used.tolist(), start=1):
        if count < GOOD_USAGE * could:
            notes.append(
                f"level {level} uses {count:,} of the {could:,} codes that it could ({count / could:.0%}): fewer codes "
                f"(size), restart_epochs=1 or more epochs may spread items better"
            )
    largest = min(config.batch_size, n_vectors)
    if config.uniform_last and largest < config.size:
        notes.append(
            f"the last level was not spread in training, since no batch ({largest:,} items) has as many items as a "
            f"level has codes ({config.size:,}); names were spread all the same"
        )
    return notes


def check_usage(used: IntArray, distinct: int, config: RQVAEConfig) -> None:
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


def tiger() -> RQVAEConfig:
    """TIGER's codes: three learnt levels and a tie-break counter, nothing spread evenly."""
    return RQVAEConfig(levels=3, size=256, uniform_last=False, tie_break="counter")


def paper() -> RQVAEConfig:
    """TIGER's network and length of training, with AdamW as public re-implementations have it."""
    training = TrainingConfig(epochs=5000, weight_decay=1e-4, warmup_steps=600, judge_every=50, patience=1000)
    return RQVAEConfig(
        levels=3, size=256, hidden=(512, 256, 128), uniform_last=False, tie_break="counter", training=training
    )  # fmt: skip


def lc_rec() -> RQVAEConfig:
    """LC-Rec's network and length of training: four levels, the last spread evenly."""
    training = TrainingConfig(
        epochs=10_000, weight_decay=1e-4, clip_norm=1.0, warmup_steps=600, schedule="linear", judge_every=50,
        patience=1000,
    )  # fmt: skip
    return RQVAEConfig(size=256, hidden=(2048, 1024, 512, 256, 128, 64), training=training)
