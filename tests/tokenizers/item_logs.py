"""Small catalogues with planted structure, and an encoder that knows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from palate.core import store
from palate.core.dataset import Dataset
from palate.core.naming import NamesItems
from palate.core.protocols import FloatArray
from palate.core.run import Run
from palate.systems import component


def log(histories: Sequence[Sequence[int]], n_items: int, **columns: Sequence[Any]) -> Dataset:
    """One user a list of item rows, oldest first; further columns of the item table."""
    users = np.repeat(np.arange(len(histories)), [len(row) for row in histories])
    interactions = pl.DataFrame(
        {
            "user_row": pl.Series(users, dtype=pl.Int32),
            "item_row": pl.Series([item for row in histories for item in row], dtype=pl.Int32),
        }
    )
    items = pl.DataFrame({"item": [f"i{row}" for row in range(n_items)], **columns})
    people = pl.DataFrame({"user": [f"u{row}" for row in range(len(histories))]})
    return Dataset("planted", interactions, items, people, "order")


def blocks(n_items: int = 200, n_users: int = 1500, n_blocks: int = 4, loyal: float = 0.9, seed: int = 0) -> Dataset:
    """Each user buys from one block, ``row % n_blocks``, with chance ``loyal``; else anywhere."""
    rng = np.random.default_rng(seed)
    histories = []
    for user in range(n_users):
        inside = rng.integers(0, n_items // n_blocks, 8) * n_blocks + user % n_blocks
        anywhere = rng.integers(0, n_items, 8)
        histories.append(np.where(rng.random(8) < loyal, inside, anywhere).tolist())
    return log(histories, n_items)


def texts(n_items: int, n_kinds: int, n_users: int = 60, unseen: int = 0, seed: int = 0) -> Dataset:
    """Items whose text says ``kind row % n_kinds`` and a word of its own; the last ``unseen`` are never bought."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, n_items - unseen, 6).tolist() for _ in range(n_users)]
    rows[0] = list(range(n_items - unseen))
    return log(rows, n_items, text=[f"kind {row % n_kinds} word {row}" for row in range(n_items)])


def longer(dataset: Dataset, n_more: int, **columns: Sequence[Any]) -> Dataset:
    """The same items and, after them, new ones."""
    n = dataset.n_items
    more = pl.DataFrame({"item": [f"i{row}" for row in range(n, n + n_more)], **columns})
    items = pl.concat([dataset.items, more], how="diagonal")
    return Dataset(dataset.name, dataset.interactions, items, dataset.users, dataset.clock)


class KindEncoder:
    """``kind k word w`` → a direction of its kind and a little of its own. ``noise=0`` makes twins of a kind."""

    def __init__(self, noise: float = 0.1, width: int = 16) -> None:
        self.noise, self.width = noise, width

    @property
    def version(self) -> str:
        return f"kind {self.noise} {self.width}"

    def encode(self, texts: Sequence[str]) -> FloatArray:
        def one(text: str) -> Any:
            _, kind, _, word = text.split()
            mean = np.random.default_rng([1, int(kind)]).normal(size=self.width)
            return mean + self.noise * np.random.default_rng([2, int(word)]).normal(size=self.width)

        return np.stack([one(text) for text in texts]).astype(np.float32)

    def save(self, folder: Path) -> None:
        store.save(folder, self, facts={"noise": self.noise, "width": self.width})

    @classmethod
    def load(cls, folder: Path) -> Self:
        raise AssertionError("a class outside the package is never loaded")


def names(tokenizer: NamesItems[Any]) -> list[list[str]]:
    """Every item's tokens as words."""
    codes = tokenizer.codes
    return [[codes.vocabulary[token] for token in row if token >= 0] for row in codes.tokens]


def fitted(name: str, train: Dataset, seed: int = 0, **settings: Any) -> NamesItems[Any]:
    """A tokenizer of the table, fitted."""
    return component("tokenizer", part(name, settings)).fit(train, Run(seed=seed))


def part(name: str, settings: dict[str, Any]) -> Any:
    from palate.core.config import Part

    return Part.model_validate({"name": name, **settings})
