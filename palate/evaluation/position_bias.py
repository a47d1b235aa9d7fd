"""How much a ranking depends on where the candidates stood in the prompt (cf. Hou et al. 2024, arXiv 2305.08845).

The same candidates are shown in several random orders. Two figures say what the order did: ``copied``, the rank
correlation (Spearman) between the place where a candidate was shown and the place that it was given, 0 where the order
is no matter, 1 where it is copied, below 0 where what stands last is preferred; and ``agreed``, the rank correlation
between the rankings of two orders of the same candidates, 1 where they are the same. Running sums, so that a server may
keep them. Shapes: o orders of one question, C candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from palate.core.ragged import IntArray
from palate.core.report import Interval

Floats = npt.NDArray[np.float64]


@dataclass
class Mean:
    """A mean over questions with its normal 95 % interval; why not one over users, docs/decisions.md says."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """A number that does not exist counts for nothing."""
        if math.isfinite(value):
            self.n, self.total, self.squares = self.n + 1, self.total + value, self.squares + value * value

    @property
    def interval(self) -> Interval:
        if not self.n:
            return Interval(math.nan, math.nan, math.nan)
        mean = self.total / self.n
        spread = math.sqrt(max(self.squares / self.n - mean * mean, 0.0) / max(self.n - 1, 1))
        return Interval(mean, mean - 1.96 * spread, mean + 1.96 * spread, self.n)


@dataclass
class PositionBias:
    """What is known so far. ``given`` and ``shown`` are the sums behind ``by_place``."""

    copied: Mean = field(default_factory=Mean)
    agreed: Mean = field(default_factory=Mean)
    _given: Floats = field(default_factory=lambda: np.zeros(0))
    _shown: Floats = field(default_factory=lambda: np.zeros(0))

    def add(self, worth: Floats, orders: IntArray) -> None:
        """One question: ``orders`` ``[o, C]`` says which candidate stood at each place, ``worth`` ``[o, C]`` how good
        the model found the one at each place (higher is better, equal ones share their places)."""
        given = np.stack([midranks(row) for row in worth])
        at = np.arange(given.shape[1], dtype=np.float64)
        self.copied.add(_mean([correlation(at, row) for row in given]))
        by_candidate = np.empty_like(given)
        np.put_along_axis(by_candidate, orders, given, axis=1)
        o = len(given)
        pairs = [(a, b) for a in range(o) for b in range(a)]
        self.agreed.add(_mean([correlation(by_candidate[a], by_candidate[b]) for a, b in pairs]))
        if len(self._given) < len(at):
            more = len(at) - len(self._given)
            self._given, self._shown = np.pad(self._given, (0, more)), np.pad(self._shown, (0, more))
        self._given[: len(at)] += given.sum(0)
        self._shown[: len(at)] += o

    @property
    def by_place(self) -> Floats:
        """``[C]`` the mean place, 1 = best, given to what was shown first, second …"""
        return np.divide(self._given, self._shown, out=np.full(len(self._given), np.nan), where=self._shown > 0)

    def __str__(self) -> str:
        copied, agreed = self.copied.interval, self.agreed.interval
        said = "position: nothing was asked in any order"
        if copied.n:
            said = (
                f"position: places shown and given correlate {copied.value:+.2f} "
                f"[{copied.low:+.2f}, {copied.high:+.2f}] (0: the order is no matter, 1: it is copied)"
            )
        if agreed.n:
            said += f", two orders of one question agree {agreed.value:+.2f} (1: fully)"
        return said


def midranks(worth: npt.NDArray[np.floating]) -> Floats:
    """``[C]`` the rank of each, 1 = best; equal ones share the mean of theirs."""
    better = (worth[:, None] < worth[None, :]).sum(1)
    equal = (worth[:, None] == worth[None, :]).sum(1)
    return better + (equal + 1) / 2.0


def correlation(one: Floats, other: Floats) -> float:
    """Pearson's, of places Spearman's; NaN where one of them does not vary."""
    a, b = one - one.mean(), other - other.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else math.nan


def _mean(values: list[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
