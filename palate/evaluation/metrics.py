"""Values of single cases: from the rank of one target, or from a list and several relevant items.

With one target: gain ``g(r)`` at rank ``r``. Where the target shares places ``first..last`` with other items, the value
is the mean gain over these places, which is its exact expectation when ties are broken by lot (McSherry & Najork 2008,
"Computing information retrieval performance measures efficiently in the presence of tied scores"). So a system that
gives every item the same score gets exactly what chance gets, no more and no less.

Shapes: B cases, k places of a list.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from palate.core.errors import ConfigError, DataError, nearest
from palate.core.ragged import IntArray, Ragged
from palate.core.rankings import Rankings

Values = npt.NDArray[np.float64]

KINDS = {
    "recall": "share of the relevant items among the first k",
    "hit": "1 when any relevant item is among the first k",
    "ndcg": "discounted gain 1 / log2(1 + rank) of the first k over the best possible one",
    "mrr": "1 / rank of the first relevant item, 0 below place k",
    "precision": "share of the first k that is relevant",
    "map": "mean of the precision at each relevant item of the first k",
}
"""Every metric and what it says."""

_PRETTY = {"recall": "R", "hit": "Hit", "ndcg": "NDCG", "mrr": "MRR", "precision": "P", "map": "MAP"}


@dataclass(frozen=True)
class Metric:
    """A kind of ``KINDS`` and its cut-off ``k``; None looks at the whole order."""

    kind: str
    k: int | None

    @property
    def name(self) -> str:
        return self.kind if self.k is None else f"{self.kind}@{self.k}"

    @property
    def pretty(self) -> str:
        """As people write it: ``NDCG@10``, ``R@10``."""
        return self.name.replace(self.kind, _PRETTY[self.kind])

    def gains(self, n_places: int) -> Values:
        """``[n_places]`` the value of a single target at places 1, 2, …"""
        place = np.arange(1, n_places + 1, dtype=np.float64)
        if self.kind == "ndcg":
            gain = 1 / np.log2(1 + place)
        elif self.kind in ("mrr", "map"):
            gain = 1 / place
        else:
            gain = np.full(n_places, 1 / (self.k or n_places) if self.kind == "precision" else 1.0)
        return gain if self.k is None else np.where(place <= self.k, gain, 0.0)

    def of_ranks(
        self, ranks: npt.NDArray[np.floating], tied: npt.NDArray[np.integer | np.floating] | None = None
    ) -> Values:
        """``[B]`` values from expected ranks of one target a case.

        tied    how many items share the place, the target among them; None takes the smallest group that gives the
                rank: 1 for a whole rank, 2 for one that ends in a half
        rank    inf = not found = 0; NaN = not asked = NaN. A rank below 1 raises ``DataError``.
        """
        ranks = np.asarray(ranks, dtype=np.float64)
        if (ranks < 1).any():
            raise DataError(f"a rank of {ranks[ranks < 1][0]:g}: ranks begin at 1")
        found = np.isfinite(ranks)
        rank = np.where(found, ranks, 1.0)
        group = np.where(rank % 1 == 0, 1.0, 2.0) if tied is None else np.where(found, tied, 1.0)
        first = np.rint(rank - (group - 1) / 2).astype(np.int64)
        last = np.rint(rank + (group - 1) / 2).astype(np.int64)
        # Nothing beyond the cut-off has a gain, so the table of gains ends there.
        end = int(last.max(initial=1)) if self.k is None else min(self.k, int(last.max(initial=1)))
        gain = np.concatenate([[0.0], self.gains(end), [0.0]])
        sums = np.cumsum(gain)
        shared = (sums[np.minimum(last, end)] - sums[np.minimum(first - 1, end)]) / group
        value = np.where(group == 1, gain[np.minimum(first, end + 1)], shared)
        return np.where(np.isnan(ranks), np.nan, np.where(found, value, 0.0))

    def chance(self, n_candidates: int) -> float:
        """What an order by lot of ``n_candidates`` items gives a single target on average."""
        return float(self.gains(n_candidates).mean()) if n_candidates else float("nan")

    def of_rankings(self, rankings: Rankings, relevant: Ragged) -> Values:
        """``[B]`` values of lists against any number of relevant items; NaN where nothing is relevant.

        An item that stands twice in a list counts once, at its first place; a repeated relevant item counts once.
        """
        n_relevant, hits = _hits(rankings.item_rows, relevant)
        width = hits.shape[1]
        k = width if self.k is None else min(self.k, width)
        hits = hits[:, :k]
        place = np.arange(1, k + 1)
        asked = n_relevant > 0
        n = np.maximum(n_relevant, 1)
        if self.kind == "hit":
            value = hits.any(axis=1).astype(np.float64)
        elif self.kind == "recall":
            value = hits.sum(axis=1) / n
        elif self.kind == "precision":
            value = hits.sum(axis=1) / max(self.k or width, 1)
        elif self.kind == "mrr":
            value = (hits / place).max(axis=1, initial=0.0)
        elif self.kind == "map":
            value = (hits * np.cumsum(hits, axis=1) / place).sum(axis=1) / n
        else:
            ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(1 + np.arange(1, int(n.max(initial=1)) + 1)))])
            reachable = n if self.k is None else np.minimum(n, self.k)
            value = (hits / np.log2(1 + place)).sum(axis=1) / ideal[reachable]
        return np.where(asked, value, np.nan)


@dataclass(frozen=True)
class Shown:
    """What tables and sentences need to know of a figure: how people write it, and whether less of it is better."""

    pretty: str
    less_is_better: bool = False

    @property
    def best(self) -> str:
        """``highest`` or ``lowest``."""
        return "lowest" if self.less_is_better else "highest"

    def good(self, value: float) -> float:
        """A number that is higher for a better value."""
        return -value if self.less_is_better else value


OF_RATINGS = {"rmse": Shown("RMSE", True), "mae": Shown("MAE", True), "auc": Shown("AUC")}
"""Figures of predicted ratings: ``evaluation.ratings`` computes them."""


def shown(name: str) -> Shown:
    """How the metric of that name is shown; one of a part of the questions as ``part/recall@10``."""
    part, _, inner = name.rpartition("/")
    if inner in OF_RATINGS:
        return OF_RATINGS[inner]
    return Shown(f"{part} {metric(inner).pretty}".strip())


@lru_cache(maxsize=256)
def metric(name: str) -> Metric:
    """``"ndcg@10"`` → the metric. Raises ``ConfigError`` that names the nearest kind or the right form."""
    kind, at, cut = name.strip().lower().partition("@")
    if kind not in KINDS:
        raise ConfigError(f"no metric '{name}'{nearest(kind, KINDS)}")
    if not at:
        if kind == "precision":
            raise ConfigError("'precision' needs a cut-off, such as precision@10")
        if kind in ("recall", "hit"):
            raise ConfigError(f"'{kind}' without a cut-off is always 1; write {kind}@10")
        return Metric(kind, None)
    if not re.fullmatch(r"[1-9][0-9]*", cut):
        raise ConfigError(f"metric '{name}': the cut-off must be a whole number from 1, such as {kind}@10")
    return Metric(kind, int(cut))


def metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """Several metrics by name."""
    return tuple(metric(name) for name in names)


def _hits(item_rows: IntArray, relevant: Ragged) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """``[B]`` how many distinct items are relevant, and ``[B, k]`` whether each place holds a new relevant one."""
    b, width = item_rows.shape
    if len(relevant) != b:
        raise DataError(f"{b} lists but {len(relevant)} sets of relevant items")
    flat = relevant.flat().astype(np.int64)
    if (flat < 0).any():
        raise DataError("a relevant item has a negative row")
    size = 1 + int(max(item_rows.max(initial=0), flat.max(initial=0)))
    wanted = np.unique(relevant.row_numbers() * size + flat)
    answered = np.where(item_rows >= 0, item_rows + np.arange(b)[:, None] * size, -1)
    hits = np.isin(answered, wanted)
    order = np.argsort(item_rows, axis=1, kind="stable")
    ordered = np.take_along_axis(item_rows, order, axis=1)
    again = np.zeros((b, width), dtype=bool)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return np.bincount(wanted // size, minlength=b), hits & ~again
