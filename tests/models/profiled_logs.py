"""Few events in many groups, and an annotator who knows the groups: what a profile can add to a graph is planted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from palate.core import store
from palate.core.annotations import ItemProfile, UserProfile
from palate.core.dataset import Dataset
from palate.core.ragged import IntArray
from tests.models.collaborative_logs import log_of

GROUPS, N_USERS, N_ITEMS = 8, 240, 80
WORDS = ("amber", "basalt", "cedar", "dune", "ember", "fjord", "grove", "heath")


def sparse_groups(seed: int = 0, met: int = 4, noise: float = 0.5) -> Dataset:
    """User u and item i are of groups u % 8 and i % 8; ``met`` of 10 items each; a share of events is of any item."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(N_USERS):
        own = rng.choice(np.arange(user % GROUPS, N_ITEMS, GROUPS), met, replace=False)
        anything = rng.integers(N_ITEMS, size=met)
        rows.append(list(dict.fromkeys(np.where(rng.random(met) < noise, anything, own).tolist())))
    return log_of(rows, N_ITEMS)


class Knower:
    """Names the group of everybody but user 1 and item 2, and remembers the events it was shown."""

    label = "knower"

    def __init__(self) -> None:
        self.order: list[str] = []
        self.shown: set[tuple[int, int]] = set()

    def item_profiles(self, train: Dataset, items: IntArray) -> list[ItemProfile]:
        self.order.append("items")
        return [
            ItemProfile(i, "" if i == 2 else f"for {WORDS[i % GROUPS]} people", "", "knower") for i in items.tolist()
        ]

    def user_profiles(self, train: Dataset, users: IntArray, of_items: Sequence[ItemProfile]) -> list[UserProfile]:
        self.order.append("users")
        assert [profile.item_row for profile in of_items] == list(range(train.n_items))
        self.shown |= set(zip(train.user_rows.tolist(), train.item_rows.tolist(), strict=True))
        return [UserProfile(u, "" if u == 1 else f"likes {WORDS[u % GROUPS]}", "", "knower") for u in users.tolist()]

    def save(self, folder: Path) -> None:
        store.save(folder, self)

    @classmethod
    def load(cls, folder: Path) -> Knower:
        return cls()
