"""Logs whose truth stands in the texts: vases of many colours, and the colour that comes next follows a rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from palate.core.dataset import Dataset
from palate.core.ranks import ranks
from palate.core.requests import Requests
from palate.data.build import dataset_from

COLOURS = (
    "red", "green", "blue", "white", "black", "grey", "pink", "brown", "gold", "amber", "olive", "coral", "ivory",
    "lilac", "mauve", "navy", "teal", "ochre",
)  # fmt: skip
EACH = 8
N = EACH * len(COLOURS)
HOUR = 3_600_000
NANO = {"width": 32, "heads": 2, "layers": 1, "forward_width": 64, "vocabulary": 400, "steps": 20, "block": 32}


def colour_of(items: np.ndarray) -> np.ndarray:
    return items // EACH


def rainbow(n_users: int = 150, n_events: int = 9, *, spare: int = 0, seed: int = 0, same: bool = False) -> Dataset:
    """The colour of what comes next follows from the colour before; which item of that colour is chance. The last
    ``spare`` items of each colour are met by nobody. ``same``: all items read alike."""
    rng = np.random.default_rng(seed)
    colours = (rng.integers(0, len(COLOURS), n_users)[:, None] + np.arange(n_events)) % len(COLOURS)
    items = colours * EACH + rng.integers(0, EACH - spare, (n_users, n_events))
    return log_of(items, same=same)


def log_of(items: np.ndarray, times: np.ndarray | None = None, *, n: int = N, same: bool = False) -> Dataset:
    names = [f"i{item:03d}" for item in range(n)]
    titles = ["a vase" if same else f"{COLOURS[item // EACH]} vase {item % EACH}" for item in range(n)]
    events = pl.DataFrame({
        "user": np.repeat([f"u{user:03d}" for user in range(len(items))], items.shape[1]),
        "item": [names[item] for item in items.ravel()],
        "time": np.tile(np.arange(items.shape[1]) * HOUR, len(items)) if times is None else times.ravel(),
    })  # fmt: skip
    return dataset_from("rainbow", events, items=pl.DataFrame({"item": names, "title": titles}))


def recall(system: Any, data: Dataset, k: int, among: np.ndarray | None = None) -> float:
    """Of one question a user: the next item must have the next colour. ``among`` limits items and targets."""
    last = data.item_rows[data.histories.stops - 1]
    rng = np.random.default_rng(1)
    wanted = (colour_of(last) + 1) % len(COLOURS)
    allowed = np.arange(N) if among is None else among
    targets = np.array([rng.choice(allowed[colour_of(allowed) == colour]) for colour in wanted])
    scores = np.concatenate([b.copy() for b in system.score_blocks(Requests.for_users(data, np.arange(data.n_users)))])
    scores[:, np.setdiff1d(np.arange(N), allowed)] = np.nan
    return float((ranks([scores], targets) <= k).mean())
