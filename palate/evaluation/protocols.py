"""How systems are asked: what they may read, what may be answered, among which items the target must be found.

A protocol is a frozen object, never a flag, and its sentence stands in every report. Runs under different protocols
are not compared.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from palate.core.config import Config, Part
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError
from palate.core.ratings import RatingCases
from palate.core.requests import Requests
from palate.core.split import Cases
from palate.evaluation.candidates import draw
from palate.evaluation.metrics import metric

History = Literal["all", "train"]
"""``all``: everything before the target is asked and masked, so a test request holds the validation event.
``train``: only what also taught; public figures of several libraries are made this way."""


def _named(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ConfigError("a protocol needs at least one metric, such as ndcg@10")
    return tuple(dict.fromkeys(metric(name).name for name in names))


MetricNames = Annotated[tuple[str, ...], AfterValidator(_named)]

MAIN = "ndcg@10"
"""The metric that decides when only one is wanted."""


class FullRanking(Config):
    """The target among every item of the catalogue that may be answered: the default everywhere."""

    kind: Literal["full-ranking"] = "full-ranking"
    mask_history: bool = True
    """What was met is never answered again; a target that was met is then a miss."""
    history: History = "all"
    metrics: MetricNames = ("recall@10", "ndcg@10", "mrr@10")
    k: int = Field(default=10, ge=1)
    """Length of the lists that are kept and of those that a searching system is asked for, at least."""

    def __str__(self) -> str:
        return f"full ranking, {_reading(self.history, self.mask_history)}"

    def ask(self, cases: Cases, train: Dataset | None = None) -> Cases:
        """The same cases as they are asked under this protocol."""
        return _read(cases, self.history, self.mask_history, train)


class Candidates(Config):
    """The target among ``n`` drawn items that the user has not met: for papers that measure so, and only for them.

    Drawn without replacement, for each case by itself: the draw follows from (seed, user, target, event) and does not
    depend on the other cases or their order. ``popularity`` draws in proportion to the train events of an item.
    """

    kind: Literal["candidates"] = "candidates"
    n: int = Field(default=100, ge=1)
    seed: int = 0
    drawn: Literal["uniform", "popularity"] = "uniform"
    mask_history: bool = True
    """Whether what was met counts as answered already; drawn items are never from the history in any case."""
    history: History = "all"
    metrics: MetricNames = ("recall@10", "ndcg@10", "mrr@10")
    k: int = Field(default=10, ge=1)

    def __str__(self) -> str:
        how = "uniformly" if self.drawn == "uniform" else "in proportion to their train events"
        return (
            f"the target among {self.n} items the user has not met, drawn {how} without replacement "
            f"(seed {self.seed}), {_reading(self.history, self.mask_history)}"
        )

    def ask(self, cases: Cases, train: Dataset | None = None) -> Cases:
        """The same cases with their candidates: the target and ``n`` drawn ones, or all there are if fewer."""
        if train is None:
            raise ConfigError("the candidates protocol draws from the catalogue: give it the train part")
        asked = _read(cases, self.history, self.mask_history, train)
        weights = train.item_counts.astype(np.float32) if self.drawn == "popularity" else None
        candidates = draw(cases, n=self.n, n_items=train.n_items, seed=self.seed, weights=weights)
        return replace(asked, requests=replace(asked.requests, candidates=candidates))


class Rating(Config):
    """What each user would give to an item, against what was given: the questions of the split that have a rating.

    ``sample`` asks so many of them, drawn once from ``seed``: every system that is compared answers the same ones.
    """

    kind: Literal["rating"] = "rating"
    sample: int | None = Field(default=None, ge=1)
    seed: int = 0
    positive: float = 4.0
    """Of the area under the curve: a rating of at least so much counts as liked."""
    metrics: tuple[Literal["rmse", "mae", "auc"], ...] = ("rmse", "mae", "auc")

    def __str__(self) -> str:
        some = "every rated question" if self.sample is None else f"{self.sample:,} rated questions (seed {self.seed})"
        return f"ratings, {some}, liked from {self.positive:g} on"

    def ask(self, cases: RatingCases) -> RatingCases:
        """Those that are asked."""
        if self.sample is None or self.sample >= len(cases):
            return cases
        drawn = np.random.default_rng(self.seed).choice(len(cases), size=self.sample, replace=False)
        return cases[np.sort(drawn)]


class PreferenceAxes(Config):
    """How well words of a request are followed: the five axes of Mender (Paischer et al. 2025, arXiv 2412.08604).

    See ``evaluation.axes``. ``annotator`` writes the sentences, from what was known before each target; ``sentiment``
    tells wishes from refusals; ``encoder`` makes the vectors by which sentences and items are matched.
    """

    kind: Literal["preference-axes"] = "preference-axes"
    annotator: Part = Part(name="extractive")
    sentiment: Part = Part(name="lexicon")
    encoder: Part = Part(name="auto")
    match: Literal["title", "text"] = "title"
    """What the paper's own matching reads of the target; its figures are marked."""
    steer_with: Literal["positive", "all"] = "positive"
    """Sentences that may steer; ``all`` holds those too that ask to be spared something."""
    seed: int = 0
    """Of drawn histories and of shuffled words."""
    metrics: MetricNames = ("recall@10", "ndcg@10", "mrr@10", "recall@5", "ndcg@5", "mrr@5")
    k: int = Field(default=10, ge=1)

    def __str__(self) -> str:
        return (
            f"preference axes, sentences by {self.annotator.name}, matched by {self.encoder.name} vectors, steered by "
            f"{self.steer_with} ones, oracle by {self.match} (seed {self.seed}), "
            "history: everything before the target, masked"
        )


Protocol = FullRanking | Candidates
AnyProtocol = FullRanking | Candidates | Rating | PreferenceAxes


def _reading(history: str, mask_history: bool) -> str:
    known = "everything before the target" if history == "all" else "the train part only"
    return f"history: {known}, {'masked' if mask_history else 'not masked'}"


def _read(cases: Cases, history: History, mask_history: bool, train: Dataset | None) -> Cases:
    requests = cases.requests
    if history == "train":
        if train is None:
            raise ConfigError('history="train" needs the train part')
        if requests.user_rows is None:
            raise ConfigError('history="train" needs cases that name their users')
        taught = Requests.for_users(train, requests.user_rows)
        requests = replace(requests, histories=taught.histories, history_times=taught.history_times)
    if mask_history:
        requests = requests.leaving_out_history()
    return replace(cases, requests=requests)
