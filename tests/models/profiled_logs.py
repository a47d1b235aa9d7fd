"""Few events in many groups, and an annotator who knows the groups: what a profile can add to a graph is planted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from palate.core import store
from palate.core.annotations import Choice, ItemAttributes, ItemProfile, UserProfile, UserTraits
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
    """Names the group of everybody but user 1 and item 2, and remembers in which order it was asked."""

    label = "knower"

    def __init__(self) -> None:
        self.order: list[str] = []

    def item_profiles(self, train: Dataset, items: IntArray) -> list[ItemProfile]:
        self.order.append("items")
        return [
            ItemProfile(i, "" if i == 2 else f"for {WORDS[i % GROUPS]} people", "", "knower") for i in items.tolist()
        ]

    def user_profiles(self, train: Dataset, users: IntArray, of_items: Sequence[ItemProfile]) -> list[UserProfile]:
        self.order.append("users")
        assert [profile.item_row for profile in of_items] == list(range(train.n_items))
        return [UserProfile(u, "" if u == 1 else f"likes {WORDS[u % GROUPS]}", "", "knower") for u in users.tolist()]

    def save(self, folder: Path) -> None:
        store.save(folder, self)

    @classmethod
    def load(cls, folder: Path) -> Knower:
        return cls()


class Helper(Knower):
    """Knows the groups, too: attributes and traits name them, choices follow them; or none of it, with ``blind``."""

    def __init__(self, *, blind: bool = False, answers: np.ndarray | None = None) -> None:
        super().__init__()
        self.blind, self.answers = blind, answers
        self.offered: np.ndarray | None = None

    def item_attributes(self, train: Dataset, items: IntArray, names: Sequence[str]) -> list[ItemAttributes]:
        rows = np.random.default_rng(1).permutation(items) if self.blind else items
        values = [tuple(WORDS[i % GROUPS] if name == "category" else "" for name in names) for i in rows.tolist()]
        return [ItemAttributes(int(i), value, self.label) for i, value in zip(items, values, strict=True)]

    def user_traits(self, train: Dataset, users: IntArray, names: Sequence[str]) -> list[UserTraits]:
        rows = np.random.default_rng(2).permutation(users) if self.blind else users
        values = [tuple(WORDS[u % GROUPS] if name == "liked category" else "" for name in names) for u in rows.tolist()]
        return [UserTraits(int(u), value, self.label) for u, value in zip(users, values, strict=True)]

    def choices(self, train: Dataset, users: IntArray, offered: IntArray) -> list[Choice]:
        self.offered = np.asarray(offered)
        if self.answers is not None:
            pairs = self.answers[: len(users)]
        elif self.blind:
            picks = np.random.default_rng(3).random(offered.shape).argsort(1)[:, :2]
            pairs = np.take_along_axis(self.offered, picks, 1)
        else:
            own = self.offered % GROUPS == (users % GROUPS)[:, None]
            pairs = self.offered[np.arange(len(users))[:, None], np.stack([own.argmax(1), own.argmin(1)], 1)]
        return [Choice(int(u), int(a), int(b), self.label) for u, (a, b) in zip(users, pairs, strict=True)]
