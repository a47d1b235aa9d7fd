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

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palate.backbones.item_text import ItemText
from palate.backbones.vectors import item_vectors
from palate.core.config import Part
from palate.core.errors import TrainingError
from palate.core.naming import NamesVectors
from palate.core.protocols import Encoder, FloatArray
from palate.core.ragged import IntArray
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.parts.kmeans import CHUNK
from palate.parts.repair import name_all, name_more
from palate.parts.rq_vae import Network, Points, QuantiserConfig, check_usage, remarks
from palate.training.loop import optimise, seeded


class RQVAEConfig(QuantiserConfig):
    encoder: Part = Part(name="auto")
    """What makes vectors of the items' texts."""
    text: ItemText = ItemText()
    """How an item reads."""


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
        batches = Points(vectors.to(run.device), config.batch_size, run.seed)
        network = Network(config, vectors.shape[1], config.restart_epochs * len(batches)).to(run.device)
        network.begin(batches.points, run.seed)
        distinct = len(torch.unique(vectors, dim=0))

        def look() -> float:
            """Minus the error of the reconstruction from the nearest codes."""
            error, used = network.quality(batches.points)
            check_usage(used, distinct, config)
            return -error

        # Which code is nearest hangs on small differences, and the network is small: never in half precision.
        outcome = optimise(network, batches, network.loss, replace(run, precision="fp32"), config.training, look)
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

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        weights = {name: torch.from_numpy(array) for name, array in state.items()}
        with seeded(Run()):  # its first weights are drawn, and the random state is the caller's
            self.network = Network(self.sized, len(weights["mean"]))
        self.network.load_state_dict(weights)
        self.network.eval()


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
