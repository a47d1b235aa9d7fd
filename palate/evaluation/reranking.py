"""What a re-ranker was given to put in order: its ceiling, its figures where the target was there, and how both add up.

A re-ranker (``core.protocols.ReRanks``) answers within what another system retrieved. Figures of the retrieved part
alone say nothing about a catalogue, so they stand as a slice, beside their share::

    overall@k = among retrieved@k · share + among the others@k · (1 - share)

The second term is 0 for every k up to the number retrieved. Shapes: B cases, C retrieved items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.core.protocols import ReRanks
from palate.core.report import Interval
from palate.core.split import Cases
from palate.evaluation.metrics import Metric, metric
from palate.evaluation.uncertainty import RESAMPLES, intervals, per_user

RETRIEVED, MISSED = "retrieved", "not-retrieved"
PLACE, WIDTH = "retrieved_at", "retrieved_items"
RULES: Mapping[str, str] = {
    RETRIEVED: "the target was among the items that were retrieved to be put in order",
    MISSED: "the target was not: a miss at every k up to the number retrieved",
}
AT_ONCE = 4096
"""Cases retrieved for at once."""


def columns(system: object, asked: Cases) -> dict[str, pl.Series]:
    """For a re-ranker the place of each target among what was retrieved, null where it was not, and how many items
    that were; nothing for any other system."""
    if not isinstance(system, ReRanks):
        return {}
    places: list[npt.NDArray[np.float64]] = [np.zeros(0)]
    widths: list[npt.NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(asked), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        rows = system.retrieved(asked.requests[some]).item_rows
        at = rows == asked.targets[some][:, None]
        places.append(np.where(at.any(1), at.argmax(1) + 1.0, np.nan))
        widths.append(np.full(len(rows), rows.shape[1]))
    return {
        PLACE: pl.Series(PLACE, np.concatenate(places)).fill_nan(None),
        WIDTH: pl.Series(WIDTH, np.concatenate(widths), dtype=pl.Int32),
    }


def with_slices(cases: pl.DataFrame) -> pl.DataFrame:
    """With a flag for either part of a re-ranker's cases; as it is where nobody re-ranked."""
    if PLACE not in cases.columns:
        return cases
    there = pl.col(PLACE).is_not_null()
    return cases.with_columns(there.alias(RETRIEVED), (~there).alias(MISSED))


def figures(
    cases: pl.DataFrame, names: Sequence[Metric], *, resamples: int = RESAMPLES, run: int = 0
) -> dict[str, Interval]:
    """The ceiling, ``ceiling@20``, and the figures of the retrieving system's own order, ``retriever-recall@10``, as
    far as it goes; nothing where nobody re-ranked."""
    if PLACE not in cases.columns:
        return {}
    width = int(cases[WIDTH].max())  # type: ignore[arg-type]
    wanted = [Metric("recall", width), *(name for name in names if name.k is not None and name.k <= width)]
    labels = [f"ceiling@{width}", *(f"retriever-{name.name}" for name in wanted[1:])]
    tables = []
    for _, seed in sorted(cases.group_by("seed"), key=lambda group: group[0]):
        places = seed[PLACE].fill_null(float("inf")).to_numpy()
        values = np.column_stack([name.of_ranks(places) for name in wanted])
        tables.append(per_user(seed["user_row"].to_numpy(), values)[1])
    return dict(zip(labels, intervals(tables, resamples=resamples, run=run), strict=True))


def note(cases: pl.DataFrame, names: Sequence[Metric], run: str) -> tuple[str, ...]:
    """One line that says what the ceiling is and how the figures add up to those over all users."""
    if PLACE not in cases.columns:
        return ()
    width, there = int(cases[WIDTH].max()), cases[PLACE].is_not_null().to_numpy()  # type: ignore[arg-type]
    share = cases.select(1 / pl.len().over("seed", "user_row")).to_series().to_numpy()
    share = share / share.sum()
    ceiling = float(share[there].sum())
    said = [
        f"{run} puts {width} retrieved items in order; they hold {ceiling:.1%} of the targets, "
        f"so no recall at k <= {width} can exceed {ceiling:.3f}"
    ]
    shown = [name for name in names if name.name in ("recall@10", "ndcg@10")] or list(names[:1])
    for name in shown:
        values = cases[name.name].to_numpy()
        inside, outside = (float(values[part] @ share[part]) for part in (there, ~there))
        among, rest = inside / (ceiling or 1), outside / ((1 - ceiling) or 1)
        own = metric(name.name).of_ranks(cases[PLACE].fill_null(float("inf")).to_numpy())
        said.append(
            f"{name.name} {inside + outside:.3f} = {among:.3f} × {ceiling:.3f} + {rest:.3f} × {1 - ceiling:.3f}"
            + (f", {float(own @ share):.3f} in the order they came" if name.k is not None and name.k <= width else "")
        )
    return ("; ".join(said) + ".",)
