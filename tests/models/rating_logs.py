"""Small logs with ratings, and a world of genre lovers whose truth is known."""

from __future__ import annotations

import numpy as np
import polars as pl

from palate.core.dataset import Dataset

GENRES = ("space", "crime")


def log(events: list[tuple[int, int, float, int]], n_users: int, n_items: int) -> Dataset:
    """``(user, item, rating, time)``; sorted here."""
    table = pl.DataFrame(
        sorted(events, key=lambda event: (event[0], event[3])),
        schema=["user_row", "item_row", "rating", "time"],
        orient="row",
    ).cast({"user_row": pl.Int32, "item_row": pl.Int32, "time": pl.Int64, "rating": pl.Float64})
    items = pl.DataFrame(
        {
            "item": [f"i{row}" for row in range(n_items)],
            "title": [f"Book {row}" for row in range(n_items)],
            "category": [[GENRES[row % 2]] for row in range(n_items)],
        }
    )
    return Dataset("ratings", table, items, pl.DataFrame({"user": [f"u{row}" for row in range(n_users)]}))


def lovers(n_users: int = 60, n_items: int = 40, each: int = 14, seed: int = 0) -> Dataset:
    """Every user gives 5 to one genre and 1 to the other; nobody's mean and no item's mean says anything."""
    rng = np.random.default_rng(seed)
    events = []
    for user in range(n_users):
        for place, item in enumerate(rng.choice(n_items, each, replace=False).tolist()):
            events.append((user, item, 5.0 if item % 2 == user % 2 else 1.0, 1000 + place))
    return log(events, n_users, n_items)


def leanings(n_users: int = 60, n_items: int = 40, each: int = 14, seed: int = 0) -> Dataset:
    """Every other user gives two stars more than the rest, and one genre gets two stars more than the other: who reads
    only history or only texts is off by one star for everybody."""
    rng = np.random.default_rng(seed)
    events = []
    for user in range(n_users):
        for place, item in enumerate(rng.choice(n_items, each, replace=False).tolist()):
            events.append((user, item, 1.0 + 2 * (user % 2) + 2 * (item % 2), 1000 + place))
    return log(events, n_users, n_items)
