"""Readers who look alike by what they met and differ by what they write: only an index can tell what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from palate.core import store
from palate.core.annotations import ItemProfile, UserProfile
from palate.core.dataset import Dataset
from palate.core.ragged import IntArray

COLOURS = ("red", "blue", "green", "amber")
N_PLAIN, N_OF_COLOUR = 8, 4
N_ITEMS = N_PLAIN + N_OF_COLOUR * len(COLOURS)


def colour_of(user: int) -> int:
    return user % len(COLOURS)


def item_of(colour: int, number: int) -> int:
    return N_PLAIN + N_OF_COLOUR * colour + number


def coloured_readers(n_users: int = 64, seed: int = 0) -> Dataset:
    """Everybody meets two plain items and then one of the own colour; reviews name the colour, titles do too."""
    rng = np.random.default_rng(seed)
    events = []
    for user in range(n_users):
        plain = rng.choice(N_PLAIN, 2, replace=False).tolist()
        rows = [*plain, item_of(colour_of(user), int(rng.integers(N_OF_COLOUR)))]
        said = [f"I look for everything {COLOURS[colour_of(user)]}, truly {COLOURS[colour_of(user)]}."] * len(rows)
        said[-1] = f"So {COLOURS[colour_of(user)]}."
        events += [(user, item, 1000 * user + at, text) for at, (item, text) in enumerate(zip(rows, said, strict=True))]
    return dataset_of(events, n_users)


def dataset_of(events: Sequence[tuple[int, int, int, str]], n_users: int) -> Dataset:
    table = pl.DataFrame(
        events, schema={"user_row": pl.Int32, "item_row": pl.Int32, "time": pl.Int64, "review": pl.String}, orient="row"
    )
    titles = [f"plain {number}" for number in range(N_PLAIN)]
    titles += [f"{colour} {number}" for colour in COLOURS for number in range(N_OF_COLOUR)]
    items = pl.DataFrame({"item": [f"i{row}" for row in range(N_ITEMS)], "title": titles})
    return Dataset("readers", table, items, pl.DataFrame({"user": [f"u{row}" for row in range(n_users)]}))


class Witness:
    """Says of each user the colour."""

    label = "witness"

    def item_profiles(self, train: Dataset, items: IntArray) -> list[ItemProfile]:
        return [ItemProfile(int(item), "", "", self.label) for item in items]

    def user_profiles(self, train: Dataset, users: IntArray, of_items: Sequence[ItemProfile]) -> list[UserProfile]:
        return [UserProfile(int(u), f"Likes {COLOURS[colour_of(int(u))]}.", "", self.label) for u in users]

    def save(self, folder: Path) -> None:
        store.save(folder, self)
