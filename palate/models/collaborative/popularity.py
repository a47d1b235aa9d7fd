"""Popularity: everybody is shown what most people met, or what most people met lately. The floor of every comparison.

With ``half_life_days`` each event counts ``0.5 ** (age / half-life)``, its age reckoned from the newest event of the
training part (Ji, Sun, Zhang and Li, "A Re-visit of the Popularity Baseline in Recommender Systems", SIGIR 2020, show
why time matters here). Where no times are known, age is the number of later events in the same history, halved every
``half_life_events``. Shapes: B requests, N items.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from palate.core import store
from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.errors import TrainingError
from palate.core.protocols import FloatArray, Judge, ScoresAll
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.space import Range, SearchSpace
from palate.data.matrices import in_blocks

DAY_MS = 86_400_000


class PopularityConfig(Config):
    half_life_days: float | None = Field(None, gt=0)
    """None counts every event alike; else an event this old counts one half."""
    half_life_events: float = Field(10.0, gt=0)
    """Used instead of days where no times are known, and only when ``half_life_days`` is set."""


SPACE: SearchSpace = {
    "half_life_days": Range(1, 1000, log=True, optional=True),
}
"""What ``--tune`` searches."""


class Popularity(ScoresAll):
    """``weights`` ``[N]``: how often each item was met, older events counting less. None until fitted or loaded."""

    config_type = PopularityConfig

    def __init__(self, config: PopularityConfig | None = None) -> None:
        self.config = config or PopularityConfig()
        self.weights: FloatArray | None = None
        self.fitted_on = ""

    def fit(self, train: Dataset, run: Run, judge: Judge | None = None) -> Self:
        counted = np.bincount(train.item_rows, weights=self._event_weights(train), minlength=train.n_items)
        self.weights, self.fitted_on = counted.astype(np.float32), train.fingerprint
        return self

    def _event_weights(self, train: Dataset) -> np.ndarray | None:
        """``[E]`` what each event counts; None = one each."""
        if self.config.half_life_days is None or not train.n_interactions:
            return None
        if train.times is not None:
            age, half_life = train.times.max() - train.times, self.config.half_life_days * DAY_MS
        else:
            histories = train.histories
            age = np.repeat(histories.stops, histories.lengths) - 1 - np.arange(train.n_interactions)
            half_life = self.config.half_life_events
        return np.exp2(-(age / half_life))

    def score_blocks(self, requests: Requests) -> Iterator[FloatArray]:
        if self.weights is None:
            raise TrainingError("Popularity was not fitted yet: call fit or load first")
        for part in in_blocks(requests, len(self.weights)):
            yield np.tile(self.weights, (len(part), 1))

    def save(self, folder: Path) -> None:
        if self.weights is None:
            raise TrainingError("Popularity was not fitted yet: there is nothing to save")
        store.save(folder, self, config=self.config, arrays={"weights": self.weights}, fitted_on=self.fitted_on)

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        system = stored.begun(cls)
        system.weights, system.fitted_on = stored.arrays()["weights"], stored.fitted_on
        return system


def recent() -> PopularityConfig:
    """What is popular now: an event loses half its weight in thirty days."""
    return PopularityConfig(half_life_days=30.0)
