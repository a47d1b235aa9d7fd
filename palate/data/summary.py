"""What is in a data set, in numbers a person checks before trusting it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from palate.core.dataset import Dataset
from palate.core.ragged import IntArray

REPEAT_LIMIT = 0.1
"""Above this share of repeated targets, ranking only new items asks another question than the data answer."""

QUANTILES = {"least": 0.0, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "most": 1.0}
HEAD = 8


@dataclass(frozen=True)
class Summary:
    """Numbers of one data set.

    density             share of all user-item pairs that have an event
    repeated_targets    share of users whose last event is an item they met before (users with two events or more)
    repeated_events     share of events whose item the user met before
    gini                inequality of item popularity: 0 = all items equally often, 1 = one item has everything
    no_events           items that no event shows
    """

    name: str
    title: str
    users: int
    items: int
    events: int
    density: float
    clock: str
    first: str | None
    last: str | None
    per_user: dict[str, float]
    per_item: dict[str, float]
    repeated_targets: float
    repeated_events: float
    gini: float
    no_events: int
    popular: list[tuple[str, int]]
    columns: dict[str, dict[str, str]]
    filled: dict[str, float]
    about: dict[str, Any]
    warnings: list[str]

    def as_json(self) -> dict[str, Any]:
        """The schema ``palate.data/1``."""
        return {"schema": "palate.data/1", **asdict(self)}


def summarise(dataset: Dataset) -> Summary:
    """Everything ``palate data show`` says."""
    counts = dataset.item_counts
    targets, repeats = repeated(dataset)
    first, last = _range(dataset)
    pairs = round(dataset.n_interactions * (1 - repeats))
    popular = np.argsort(-counts, kind="stable")[:HEAD]
    return Summary(
        name=dataset.name,
        title=dataset.about.title,
        users=dataset.n_users,
        items=dataset.n_items,
        events=dataset.n_interactions,
        density=pairs / max(dataset.n_users * dataset.n_items, 1),
        clock=dataset.clock,
        first=first,
        last=last,
        per_user=_quantiles(dataset.histories.lengths),
        per_item=_quantiles(counts),
        repeated_targets=targets,
        repeated_events=repeats,
        gini=gini(counts),
        no_events=int((counts == 0).sum()),
        popular=[(dataset.titles[row], int(counts[row])) for row in popular.tolist()],
        columns={
            name: {column: str(dtype) for column, dtype in table.schema.items()}
            for name, table in (("events", dataset.interactions), ("items", dataset.items), ("users", dataset.users))
        },
        filled=_filled(dataset),
        about=asdict(dataset.about),
        warnings=_warnings(dataset, targets),
    )


def gini(counts: IntArray) -> float:
    """The Gini coefficient of non-negative numbers; 0 where there is nothing to share."""
    total = int(counts.sum())
    if not total:
        return 0.0
    ordered = np.sort(counts).astype(np.float64)
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total))


def repeated(dataset: Dataset) -> tuple[float, float]:
    """The share of users whose last event is a repeat, and the share of events that are repeats."""
    if not dataset.n_interactions:
        return 0.0, 0.0
    histories = dataset.histories
    pairs = dataset.user_rows.astype(np.int64) * max(dataset.n_items, 1) + dataset.item_rows
    # Events are in history order, so of equal pairs the first of a stable sort is the one that is new.
    order = np.argsort(pairs, kind="stable")
    again = np.zeros(len(pairs), dtype=np.bool_)
    again[order[1:]] = pairs[order[1:]] == pairs[order[:-1]]
    asked = histories.stops[histories.lengths >= 2] - 1
    return float(again[asked].mean()) if len(asked) else 0.0, float(again.mean())


def _range(dataset: Dataset) -> tuple[str | None, str | None]:
    if dataset.clock == "order" or not dataset.n_interactions:
        return None, None
    time = dataset.interactions["time"]
    ends = [time.min(), time.max()]
    style = "%Y-%m-%d" if dataset.clock == "day" else "%Y-%m-%d %H:%M:%S"
    said = [None if end is None else _moment(int(end), style) for end in ends]  # type: ignore[arg-type]
    return said[0], said[1]


def _moment(milliseconds: int, style: str) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime(style)
    except (OverflowError, ValueError, OSError):
        return f"{milliseconds} ms"


def _quantiles(counts: IntArray) -> dict[str, float]:
    if not len(counts):
        return dict.fromkeys([*QUANTILES, "mean"], 0.0)
    found = np.quantile(counts, list(QUANTILES.values()))
    return {**dict(zip(QUANTILES, found.tolist(), strict=True)), "mean": float(counts.mean())}


def _filled(dataset: Dataset) -> dict[str, float]:
    """How many items have a title, a text, …, and how many events a rating, a review, …"""
    shares: dict[str, float] = {}
    for kind, table, skipped in (
        ("items", dataset.items, "item"),
        ("events", dataset.interactions, "user_row item_row"),
    ):
        for column in table.columns:
            if column in skipped.split() or not table.height:
                continue
            values = table[column]
            empty = values.null_count()
            if values.dtype.is_nested() and hasattr(values, "list") and str(values.dtype).startswith("List"):
                empty += int((values.list.len() == 0).sum() or 0)
            elif str(values.dtype) == "String":
                empty += int((values == "").sum() or 0)
            shares[f"{kind}.{column}"] = 1 - empty / table.height
    return shares


def _warnings(dataset: Dataset, targets: float) -> list[str]:
    warnings = []
    if targets > REPEAT_LIMIT:
        warnings.append(
            f"{targets:.0%} of the users' last events are items they met before: decide with duplicates=first|last, or "
            "do not mask the history when judging"
        )
    if dataset.clock == "order":
        warnings.append("only the order of events is known: temporal splits and time features refuse this data")
    elif dataset.times is None and dataset.n_interactions:
        unknown = dataset.interactions["time"].null_count()
        warnings.append(f"{unknown:,} events have no time: they stand first in their histories, temporal splits refuse")
    return warnings
