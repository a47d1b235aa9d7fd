"""Title: an item is called by its title in square brackets, as plain text.

The TID of Hua et al. 2023 (arXiv 2305.06569): names are long, and alike for items that have nothing in common.

Where we depart, and why: of items that have the same title the later ones get a number behind it, since a name that
two items share can never be answered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from palate.core.codes import Codes
from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.naming import NamesItems, all_live, padded
from palate.core.ragged import IntArray, Ragged
from palate.core.run import Run

_PIECES = re.compile(r"\[|\]| ?[^ \[\]]+| ")


class TitleConfig(Config):
    pass


class Title(NamesItems[TitleConfig]):
    """Tokens are words with the space before them, and brackets."""

    config_type = TitleConfig

    def name(self, train: Dataset, run: Run) -> Codes:
        order = self.drawn().permutation(train.n_items)
        names = _names(train, order, set())
        pieces = [_PIECES.findall(names[row]) for row in range(train.n_items)]
        words = sorted({piece for name in pieces for piece in name})
        return Codes(_tokens(pieces, words), tuple(words), False, all_live(train.n_items))

    def name_new(self, catalogue: Dataset, item_rows: IntArray) -> Codes:
        codes = self.codes
        names = _names(catalogue, item_rows, {codes.spell(row) for row in range(codes.n_items)})
        pieces = [_PIECES.findall(names[row]) for row in item_rows.tolist()]
        more = sorted({piece for name in pieces for piece in name} - set(codes.vocabulary))
        return codes.grown(_tokens(pieces, (*codes.vocabulary, *more)), more)


def _names(dataset: Dataset, item_rows: IntArray, taken: set[str]) -> dict[int, str]:
    """The name of each of these items; the first in this order keeps a title that several have."""
    titles = dataset.items["title"].to_list() if "title" in dataset.items.columns else [None] * dataset.n_items
    names: dict[int, str] = {}
    times: dict[str, int] = {}
    for row in item_rows.tolist():
        title = " ".join((titles[row] or f"title_{dataset.item_ids[row]}").split())
        name = f"[{title}]"
        while name in taken:
            times[title] = times.get(title, 1) + 1
            name = f"[{title} ({times[title]})]"
        taken.add(name)
        names[row] = name
    return names


def _tokens(pieces: Sequence[Sequence[str]], words: Sequence[str]) -> np.ndarray:
    row_of = {word: row for row, word in enumerate(words)}
    return padded(Ragged.of([[row_of[piece] for piece in name] for name in pieces]))
