"""For whom and for what it works: parts of the cases, every one of them defined from the train part alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.core.dataset import Dataset
from palate.core.errors import ComparisonError, ConfigError, nearest
from palate.core.report import Report
from palate.core.split import Cases
from palate.evaluation.metrics import OF_RATINGS, metric

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


def of_slice(report: Report, name: str) -> Report:
    """What ``report`` says of one slice, as a report of its own that can be compared and shown like any other.

    A slice chooses cases; ``cold-items-among-cold`` also chooses the columns: its values follow from the places among
    cold items. Users outside a slice of ranked cases stay in the table without a value, so that resamples are those
    the slice's own intervals were made with. Raises ``ConfigError`` for an unknown slice, ``ComparisonError`` where no
    case of this report is in it.
    """
    known = (COLD_AMONG_COLD, *NAMES)
    if name not in known:
        raise ConfigError(f"there is no slice '{name}'{nearest(name, known)}")
    if name not in report.slices:
        have = ", ".join(part for part in known if part in report.slices) or "no slice"
        raise ComparisonError(f"run '{report.name}' has no case of {name} under '{report.protocol}' (it has {have})")
    figures, rule = report.slices[name], report.slice_rules.get(name, "")
    chance = [f"chance alone gives {key} {span.chance:.3f}" for key, span in figures.items() if span.chance is not None]
    return replace(
        report, part=name, cases=_cases_of(report.cases, name, list(figures)), metrics=figures, slices={},
        slice_rules={}, beyond={}, notes=(f"{name}: {'; '.join([rule, *chance])}.", *report.notes),
    )  # fmt: skip


def _cases_of(cases: pl.DataFrame, name: str, metrics: Sequence[str]) -> pl.DataFrame:
    if all(figure in OF_RATINGS for figure in metrics):
        return cases.filter(pl.col(name))
    if name == COLD_AMONG_COLD:
        ranks, tied = (cases[column].to_numpy() for column in ("rank_among_cold", "tied_among_cold"))
        return cases.with_columns(pl.Series(figure, metric(figure).of_ranks(ranks, tied)) for figure in metrics)
    return cases.with_columns(pl.when(name).then(pl.col(figure)).otherwise(float("nan")) for figure in metrics)


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
