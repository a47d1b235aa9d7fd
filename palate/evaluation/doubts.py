"""Whether the events that a system mistrusts are noise: of as many as there are noise, how many of those it fits worst.

Events are ranked by their remembered loss and as many are taken as are noise, so precision and recall are one figure;
ties share their places, and chance gives the share of noise. Its interval is a bootstrap over users with the taken
events fixed.
Shapes: E events, U users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.core.errors import DataError
from palate.core.ragged import IntArray
from palate.core.report import Interval
from palate.evaluation.uncertainty import interval, user_counts


@dataclass(frozen=True)
class Doubts:
    """``largest`` is the share of noise among the events of largest loss, ``smallest`` among those of smallest loss."""

    events: int
    noise: int
    largest: Interval
    smallest: Interval

    @property
    def chance(self) -> float:
        return self.noise / self.events


def doubts(users: IntArray, losses: npt.NDArray[np.floating], noise: npt.NDArray[np.bool_]) -> Doubts:
    """Of users ``[E]``, losses ``[E]`` (NaN = unknown, left out) and which events are ``noise`` ``[E]``.

    Raises ``DataError`` where no event of a known loss is noise, or all are."""
    known = ~np.isnan(losses)
    users, losses, noise = users[known], losses[known], noise[known]
    n = int(noise.sum())
    if n in (0, len(noise)):
        raise DataError("among the events whose losses are known there must be both noise and others")
    return Doubts(len(noise), n, _precision(users, noise, losses, n), _precision(users, noise, -losses, n))


def _precision(
    users: IntArray, noise: npt.NDArray[np.bool_], losses: npt.NDArray[np.floating], n: int
) -> Interval:  # fmt: skip
    """Among the ``n`` events of largest loss; those that tie for the last places share them."""
    cut = np.partition(losses, -n)[-n]
    above, tied = losses > cut, losses == cut
    taken = above + tied * ((n - above.sum()) / tied.sum())
    _, place = np.unique(users, return_inverse=True)
    n_users = int(place.max()) + 1
    of_user = np.bincount(place, weights=taken, minlength=n_users)
    hits = np.bincount(place, weights=taken * noise, minlength=n_users)
    sums = np.vstack([counts @ np.stack([hits, of_user], 1) for counts in user_counts(n_users)])
    with np.errstate(invalid="ignore"):
        resampled = sums[:, 0] / sums[:, 1]  # NaN where no event of the drawn users was taken
    return interval(float(hits.sum() / n), resampled, n_users)
