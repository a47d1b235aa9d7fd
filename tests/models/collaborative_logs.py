"""Small logs with known answers for the collaborative systems."""

from __future__ import annotations

import numpy as np
import polars as pl

from palate.core.dataset import Clock, Dataset


def log_of(histories: list[list[int]], n_items: int, times: list[int] | None = None, clock: Clock = "order") -> Dataset:
    """One user a list of item rows, oldest first."""
    interactions = pl.DataFrame(
        {
            "user_row": pl.Series(
                np.repeat(np.arange(len(histories)), [len(row) for row in histories]), dtype=pl.Int32
            ),
            "item_row": pl.Series([item for row in histories for item in row], dtype=pl.Int32),
        }
    )
    if times is not None:
        interactions = interactions.with_columns(pl.Series("time", times, dtype=pl.Int64))
    items = pl.DataFrame({"item": [f"i{row}" for row in range(n_items)]})
    return Dataset("tiny", interactions, items, pl.DataFrame({"user": [f"u{r}" for r in range(len(histories))]}), clock)


def random_log(seed: int, n_users: int = 40, n_items: int = 25) -> Dataset:
    """Random histories of 1 to 12 items with repeats, no times."""
    rng = np.random.default_rng(seed)
    return log_of([list(rng.integers(0, n_items, rng.integers(1, 13))) for _ in range(n_users)], n_items)


def dense_user_items(train: Dataset) -> np.ndarray:
    """``[U, N]`` float64 event counts, cell by cell."""
    met = np.zeros((train.n_users, train.n_items))
    np.add.at(met, (train.user_rows, train.item_rows), 1)
    return met
