"""Averages: everybody's, the item's or the user's own. The floor of every comparison of predicted ratings.

The three heuristics of Kang et al., "Do LLMs Understand User Preferences? Evaluating LLMs On User Rating Prediction"
(arXiv 2305.06474). The item's mean is that of its ratings in the train part; the user's is that of the history that is
asked with, which ends before the question. Where there is no rating, the mean of all stands in.

Where we depart, and why: ``damping`` d > 0 draws a mean to the mean of all as d more ratings of that value would
(Funk 2006), because the mean of one rating says little. The paper's plain mean, d = 0, is the default. Shapes: B
questions, N items.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field

from palate.core import store
from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.errors import TrainingError
from palate.core.protocols import FloatArray, RatingJudge
from palate.core.ratings import Predictions, RatingRequests
from palate.core.run import Run
from palate.core.space import Range, SearchSpace
from palate.data.ratings import ratings_of


class RatingAverageConfig(Config):
    of: Literal["item", "user", "everybody"] = "item"
    damping: float = Field(0.0, ge=0)
    """As many ratings of the overall mean are added."""


SPACE: SearchSpace = {"damping": Range(0, 50)}
"""What ``--tune`` searches."""


class RatingAverage:
    """``means`` ``[N]`` of the items, NaN where none was taught; ``scale`` mean, lowest and highest rating."""

    config_type = RatingAverageConfig

    def __init__(self, config: RatingAverageConfig | None = None) -> None:
        self.config = config or RatingAverageConfig()
        self.means: FloatArray | None = None
        self.scale: FloatArray = np.zeros(3, dtype=np.float32)
        self.fitted_on = ""

    def fit(self, train: Dataset, run: Run, judge: RatingJudge | None = None) -> Self:
        ratings = ratings_of(train) if train.n_interactions else np.zeros(0, np.float32)
        known = ~np.isnan(ratings)
        taught, items = ratings[known].astype(np.float64), train.item_rows[known]
        mean = float(taught.mean()) if len(taught) else 0.0
        d = self.config.damping
        counts = np.bincount(items, minlength=train.n_items)
        sums = np.bincount(items, weights=taught, minlength=train.n_items)
        with np.errstate(invalid="ignore"):
            self.means = np.where(counts > 0, (sums + d * mean) / (counts + d), np.nan).astype(np.float32)
        self.scale = np.array([mean, taught.min(initial=mean), taught.max(initial=mean)], dtype=np.float32)
        self.fitted_on = train.fingerprint
        return self

    def predict(self, requests: RatingRequests) -> Predictions:
        means, mean = self._fitted(), float(self.scale[0])
        if self.config.of == "everybody":
            stars = np.full(len(requests), mean, dtype=np.float32)
        elif self.config.of == "user":
            stars = requests.user_means(mean, self.config.damping)
        else:
            stars = np.concatenate([means, [np.nan]])[np.where(requests.items < len(means), requests.items, -1)]
            stars = np.where(np.isnan(stars), mean, stars)
        return Predictions.of(np.clip(stars, self.scale[1], self.scale[2]))

    def _fitted(self) -> FloatArray:
        if self.means is None:
            raise TrainingError("RatingAverage was not fitted yet: call fit or load first")
        return self.means

    def save(self, folder: Path) -> None:
        arrays = {"means": self._fitted(), "scale": self.scale}
        store.save(folder, self, config=self.config, arrays=arrays, fitted_on=self.fitted_on)

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        system = stored.begun(cls)
        arrays = stored.arrays()
        system.means, system.scale, system.fitted_on = arrays["means"], arrays["scale"], stored.fitted_on
        return system


def everybody() -> RatingAverageConfig:
    """One number for all: the mean of all ratings."""
    return RatingAverageConfig(of="everybody")


def user() -> RatingAverageConfig:
    """What the user gave on average before."""
    return RatingAverageConfig(of="user")
