"""Whether the events that a system mistrusts are noise: of as many as there are noise, how many of those it fits worst.

Events are ranked by their remembered loss and as many are taken as are noise, so precision and recall are one figure;
ties share their places, and chance gives the share of noise. Its interval is a bootstrap over users with the taken
events fixed. Of several seeds each ranks by itself; the figure is their mean, and resamples draw seeds as well.
Shapes: S seeds, E events, U users, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.core.errors import DataError
from palate.core.ragged import IntArray
from palate.core.report import Interval
from palate.evaluation.uncertainty import interval, seed_weights, user_counts


@dataclass(frozen=True)
class Doubts:
    """``largest`` is the share of noise among the events of largest loss, ``smallest`` among those of smallest loss:
    means over seeds, whose own shares are ``largest_by_seed`` and ``smallest_by_seed``."""

    events: int
    noise: int
    largest: Interval
    smallest: Interval
    largest_by_seed: tuple[float, ...]
    smallest_by_seed: tuple[float, ...]

    @property
    def chance(self) -> float:
        return self.noise / self.events


def doubts(
    users: IntArray,
    losses: npt.NDArray[np.floating] | Sequence[npt.NDArray[np.floating]],
    noise: npt.NDArray[np.bool_],
    *,
    run: int = 0,
) -> Doubts:
    """Of users ``[E]``, losses ``[E]`` or ``[S, E]`` (NaN in any seed = unknown, left out) and which events are
    ``noise`` ``[E]``; ``run`` separates the seed draws of runs.

    Raises ``DataError`` where no event of a known loss is noise, or all are."""
    of_seeds = np.atleast_2d(np.asarray(losses))
    known = ~np.isnan(of_seeds).any(axis=0)
    users, of_seeds, noise = users[known], of_seeds[:, known], noise[known]
    n = int(noise.sum())
    if n in (0, len(noise)):
        raise DataError("among the events whose losses are known there must be both noise and others")
    largest, largest_by_seed = _precision(users, noise, of_seeds, n, run)
    smallest, smallest_by_seed = _precision(users, noise, -of_seeds, n, run)
    return Doubts(len(noise), n, largest, smallest, largest_by_seed, smallest_by_seed)


def _precision(
    users: IntArray, noise: npt.NDArray[np.bool_], losses: npt.NDArray[np.floating], n: int, run: int
) -> tuple[Interval, tuple[float, ...]]:
    """Among the ``n`` events of largest loss of each seed, those that tie for the last places sharing them: the mean
    over seeds with its interval, and each seed's own."""
    _, place = np.unique(users, return_inverse=True)
    n_users, columns = int(place.max()) + 1, []
    for of_seed in losses:
        taken = _taken(of_seed, n)
        columns += [np.bincount(place, weights=weight, minlength=n_users) for weight in (taken * noise, taken)]
    counted = np.stack(columns, axis=1)
    sums = np.vstack([counts @ counted for counts in user_counts(n_users)]).reshape(-1, len(losses), 2)
    with np.errstate(invalid="ignore"):
        shares = sums[:, :, 0] / sums[:, :, 1]  # NaN where no event of the drawn users was taken
    resampled = (shares * seed_weights(len(losses), run=run)).sum(axis=1)
    found = counted.sum(axis=0)[::2] / n
    return interval(float(found.mean()), resampled, n_users), tuple(found.tolist())


def _taken(losses: npt.NDArray[np.floating], n: int) -> npt.NDArray[np.float64]:
    """``[E]`` how much of each event is among the ``n`` of largest loss."""
    cut = np.partition(losses, -n)[-n]
    above, tied = losses > cut, losses == cut
    shared: npt.NDArray[np.float64] = above + tied * ((n - above.sum()) / tied.sum())
    return shared
