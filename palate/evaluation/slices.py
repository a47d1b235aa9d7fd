"""For whom and for what it works: parts of the cases, every one of them defined from the train part alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from palate.core.dataset import Dataset
from palate.core.split import Cases

HEAD_SHARE = 0.2
"""The head of the catalogue: the most met fifth of the items that teach."""

COLD_AMONG_COLD = "cold-items-among-cold"
"""Cold targets ranked among the cold items only: the figure that claims about cold items use."""

NAMES: Sequence[str] = (
    "cold-items",
    "warm-items",
    "head-items",
    "tail-items",
    "short-histories",
    "long-histories",
)
"""Flag columns of a table of cases. Cold and warm, head and tail, exclude each other; the middle third of the
histories is in neither slice."""


def flags(cases: Cases, train: Dataset) -> dict[str, npt.NDArray[np.bool_]]:
    """``[B]`` a flag a slice. Users and items that the train part does not know have a count of 0."""
    return flags_of(cases.targets, cases.user_rows, train)


def flags_of(
    targets: npt.NDArray[np.integer], user_rows: npt.NDArray[np.integer], train: Dataset
) -> dict[str, npt.NDArray[np.bool_]]:
    """``[B]`` a flag a slice of questions about these items and users."""
    short, long, head = thresholds(train)
    counts = train.item_counts[targets]
    lengths = _lengths(user_rows, train)
    return {
        "cold-items": counts == 0,
        "warm-items": counts > 0,
        "head-items": (counts > 0) & (counts >= head),
        "tail-items": (counts > 0) & (counts < head),
        "short-histories": lengths <= short,
        "long-histories": lengths >= long,
    }


def rules(train: Dataset) -> dict[str, str]:
    """One sentence a slice with its numbers, for tables and the docs."""
    short, long, head = thresholds(train)
    cold = int((train.item_counts == 0).sum())
    return {
        "cold-items": "the target has no train event; ranked among all that may be answered",
        COLD_AMONG_COLD: f"the target has no train event; ranked among the {cold:,} such items only",
        "warm-items": "the target has train events",
        "head-items": f"the target has at least {head:,} train events: the most met fifth of the items",
        "tail-items": f"the target has train events, but fewer than {head:,}",
        "short-histories": f"the user has at most {short:,} train events: the shortest third",
        "long-histories": f"the user has at least {long:,} train events: the longest third",
    }


def thresholds(train: Dataset) -> tuple[int, int, int]:
    """At most this many train events is a short history, at least this many a long one; and the least of a head item.

    Thirds of the users that teach, with whole ties: a length at the border belongs to the outer third.
    """
    lengths = np.sort(train.histories.lengths[train.histories.lengths > 0])
    counts = np.sort(train.item_counts[train.item_counts > 0])[::-1]
    if not len(lengths):
        return 0, 1, 1
    short = int(lengths[max(0, len(lengths) // 3 - 1)])
    long = int(lengths[min(len(lengths) - 1, len(lengths) - len(lengths) // 3)])
    head = int(counts[max(0, round(HEAD_SHARE * len(counts)) - 1)])
    return short, max(long, short + 1), head


def _lengths(user_rows: npt.NDArray[np.integer], train: Dataset) -> npt.NDArray[np.integer]:
    known = train.histories.lengths
    inside = (user_rows >= 0) & (user_rows < len(known))
    return np.where(inside, known[np.where(inside, user_rows, 0)] if len(known) else 0, 0)
