"""Events of the log → questions: the pieces every rule cuts its cases with. No event is copied."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from palate.core.dataset import Dataset
from palate.core.ragged import IntArray, Ragged
from palate.core.requests import Requests
from palate.core.split import Cases

Mask = npt.NDArray[np.bool_]


def cases_after(
    dataset: Dataset, events: IntArray, starts: IntArray, stops: IntArray, *, shown: Mask | None = None
) -> Cases:
    """Ask for the events at these positions after the slices ``starts``-``stops`` of the log.

    All ``[B]``. With ``shown`` ``[E]`` the histories hold only the events it marks.
    """
    values, times = dataset.item_rows, dataset.times
    if shown is not None:
        place = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(shown)])  # how many shown events come before
        values, times = values[shown], None if times is None else times[shown]
        starts, stops = place[starts], place[stops]
    return Cases(
        Requests(
            Ragged(values, starts, stops),
            history_times=times,
            user_rows=dataset.user_rows[events].astype(np.int64),
            times=None if dataset.times is None else dataset.times[events],
        ),
        targets=dataset.item_rows[events].astype(np.int64),
        events=events,
    )


def earlier(dataset: Dataset, events: IntArray, *, shown: Mask | None = None) -> Cases:
    """Ask for the events at these positions after all that the same user did before."""
    return cases_after(dataset, events, dataset.histories.starts[dataset.user_rows[events]], events, shown=shown)


def drawn(rows: IntArray, share: float, seed: int) -> tuple[IntArray, IntArray]:
    """A share of ``rows`` for valid and as many others for test, ascending; at least one each where there are two."""
    n = max(1, round(share * len(rows)))
    mixed = np.random.default_rng(seed).permutation(rows)
    return np.sort(mixed[n : 2 * n]), np.sort(mixed[:n])
