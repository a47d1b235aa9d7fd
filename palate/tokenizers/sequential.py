"""Sequential: items are numbered in the order in which training histories show them, so what is bought together has
numbers that begin alike.

The SID of Hua et al. 2023 (arXiv 2305.06569); numbers begin at 1001 as in OpenP5 (Xu et al. 2024, arXiv 2306.11134),
so that they all split alike. A name is plain text, the digits of the number.

Where we depart, and why: items without a training event are numbered after all others in a drawn order, never in the
order of rows, which may follow the whole log.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from palate.core.codes import Codes
from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.naming import NamesItems, all_live, digits, read_digits
from palate.core.ragged import IntArray
from palate.core.run import Run


class SequentialConfig(Config):
    order: Literal["file", "random", "short-first", "long-first"] = "file"
    """Of users: as in the data, drawn, or by the length of their histories."""
    first: int = Field(1001, ge=0)
    """The first number."""


class Sequential(NamesItems[SequentialConfig]):
    """``codes`` spell numbers."""

    config_type = SequentialConfig
    reads_interactions = True

    def name(self, train: Dataset, run: Run) -> Codes:
        histories = train.histories[self._users(train)]
        seen, first_shown = np.unique(histories.flat(), return_index=True)
        unseen = self.drawn(1).permutation(np.setdiff1d(np.arange(train.n_items), seen))
        numbers = np.empty(train.n_items, dtype=np.int64)
        shown = np.concatenate([seen[np.argsort(first_shown)], unseen])
        numbers[shown] = self.config.first + np.arange(train.n_items)
        return Codes(digits(numbers), tuple("0123456789"), False, all_live(train.n_items))

    def name_new(self, catalogue: Dataset, item_rows: IntArray) -> Codes:
        start = int(read_digits(self.codes.tokens).max(initial=self.config.first - 1)) + 1
        return self.codes.grown(digits(start + np.arange(len(item_rows))))

    def _users(self, train: Dataset) -> IntArray:
        """``[U]`` user rows, in the order in which they are read."""
        if self.config.order == "file":
            return np.arange(train.n_users)
        if self.config.order == "random":
            return self.drawn(0).permutation(train.n_users)
        lengths = train.histories.lengths
        return np.argsort(lengths if self.config.order == "short-first" else -lengths, kind="stable")
