"""Small logs for the split tests."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from palate.core.dataset import Clock, Dataset
from palate.core.split import Cases, Split


def log(
    rows: list[tuple[int, int, int]], n_users: int = 4, n_items: int = 8, clock: Clock = "unix", **items: list[str]
) -> Dataset:
    """A dataset of (user row, item row, time) in the order of the file."""
    ordered = sorted(rows, key=lambda row: (row[0], row[2]))
    interactions = pl.DataFrame(
        {
            "user_row": pl.Series([row[0] for row in ordered], dtype=pl.Int32),
            "item_row": pl.Series([row[1] for row in ordered], dtype=pl.Int32),
            "time": pl.Series([row[2] for row in ordered], dtype=pl.Int64),
        }
    )
    names = pl.DataFrame({"item": [f"i{row}" for row in range(n_items)], **items})
    return Dataset("tiny", interactions, names, pl.DataFrame({"user": [f"u{row}" for row in range(n_users)]}), clock)


def histories(cases: Cases) -> list[list[int]]:
    return [list(map(int, row)) for row in cases.requests.histories]


def events(dataset: Dataset) -> list[tuple[int, int, int]]:
    return list(dataset.interactions.select("user_row", "item_row", "time").iter_rows())


def with_train(made: Split, rows: list[tuple[int, int, int]]) -> Split:
    """The split with further events planted in its train part."""
    return replace(made, train=replace(made.train, interactions=log(events(made.train) + rows).interactions))
