"""Whether groups of users follow their tastes: normalised mutual information, against groups by lot.

Each user stands in one group and has some of several tastes. Every (user, taste) pair counts alike, in one table of
groups against tastes, and ``NMI = I(group; taste) / sqrt(H(group) H(taste))`` (Strehl & Ghosh 2002). Small groups agree
with anything a little, by chance; so the figure that means something is the distance to a random index, which is the
same groups at other users. Its interval is that distance ± 1.96 standard deviations of a bootstrap over users, in which
the random index is drawn anew each time. (The percentiles of the bootstrap themselves would lie too low: users drawn
twice agree with themselves, in both indexes.) Shapes: U users, G groups, T tastes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.core.errors import DataError
from palate.core.ragged import IntArray
from palate.core.report import Interval

RESAMPLES = 1000


@dataclass(frozen=True)
class Agreement:
    """``own`` is the NMI of the groups, ``random`` its mean over random indexes, ``above`` the distance."""

    own: float
    random: float
    above: Interval
    groups: int


def agreement(
    groups: IntArray, tastes: npt.NDArray[np.bool_], *, resamples: int = RESAMPLES, seed: int = 0
) -> Agreement:
    """Of ``groups`` ``[U]`` with ``tastes`` ``[U, T]``. Raises ``DataError`` where there are fewer than two users."""
    if len(groups) != len(tastes) or len(groups) < 2:
        raise DataError(f"{len(groups)} users in groups and {len(tastes)} with tastes: at least two of each are needed")
    _, groups = np.unique(groups, return_inverse=True)
    own, rng = information(groups, tastes), np.random.default_rng([seed, len(groups)])
    by_lot, apart = np.empty(resamples), np.empty(resamples)
    for number in range(resamples):
        other = rng.permutation(groups)
        weights = np.bincount(rng.integers(len(groups), size=len(groups)), minlength=len(groups)).astype(np.float64)
        by_lot[number] = information(other, tastes)
        apart[number] = information(groups, tastes, weights) - information(other, tastes, weights)
    middle, spread = float(by_lot.mean()), 1.96 * float(apart.std(ddof=1))
    above = Interval(own - middle, own - middle - spread, own - middle + spread, len(groups))
    return Agreement(own, middle, above, int(groups.max()) + 1)


def over_seeds(found: Sequence[Interval]) -> Interval:
    """The mean of one distance in several seeds. Its spread holds the mean spread over users, who are the same in all
    seeds, and that of the mean over seeds; so it is rather too wide than too narrow."""
    values = np.array([one.value for one in found])
    of_users = float(np.mean([(one.high - one.low) / 2 for one in found]))
    of_seeds = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    middle, spread = float(values.mean()), float(np.hypot(of_users, of_seeds))
    return Interval(middle, middle - spread, middle + spread, found[0].n)


def information(
    groups: IntArray, tastes: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64] | None = None
) -> float:
    """The NMI; each user counts ``weights`` ``[U]`` times. 0 where there is one group or one taste only."""
    counted = tastes if weights is None else tastes * weights[:, None]
    table = np.zeros((int(groups.max()) + 1, tastes.shape[1]))
    np.add.at(table, groups, counted)
    joint = table / max(table.sum(), 1e-300)
    group, taste = joint.sum(1), joint.sum(0)
    both = joint[joint > 0]
    shared = float(both @ np.log(both / np.outer(group, taste)[joint > 0]))
    spread = float(np.sqrt(_entropy(group) * _entropy(taste)))
    return shared / spread if spread > 0 else 0.0


def _entropy(shares: npt.NDArray[np.float64]) -> float:
    some = shares[shares > 0]
    return float(-(some @ np.log(some)))
