"""Random numbers: every item is a number drawn from a range, written in digits. The control without any meaning.

The RID of Hua et al., "How to Index Item IDs for Recommendation Foundation Models", SIGIR-AP 2023 (arXiv 2305.06569).
A name is plain text: a text model's own tokenizer splits the digits, so unrelated items share pieces.

Where we depart, and why: the range grows with the catalogue where it is too narrow, and new items draw from what is
left of it. That the paper's command also draws the embeddings of numerals anew is the model's affair.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from palate.core.codes import Codes
from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.naming import NamesItems, all_live, digits, read_digits
from palate.core.ragged import IntArray
from palate.core.run import Run


class RandomConfig(Config):
    low: int = Field(1000, ge=0)
    high: int = Field(13_000, ge=1)
    """Numbers are drawn from low to high, high included; a larger catalogue has a larger range."""

    @model_validator(mode="after")
    def _there_are_numbers(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"there is no number from {self.low} to {self.high}")
        return self


class Random(NamesItems[RandomConfig]):
    """``codes`` spell numbers."""

    config_type = RandomConfig

    def name(self, train: Dataset, run: Run) -> Codes:
        numbers = self._draw(train.n_items, np.zeros(0, dtype=np.int64))
        return Codes(digits(numbers), tuple("0123456789"), False, all_live(train.n_items))

    def name_new(self, catalogue: Dataset, item_rows: IntArray) -> Codes:
        return self.codes.grown(digits(self._draw(len(item_rows), read_digits(self.codes.tokens))))

    def _draw(self, n: int, taken: IntArray) -> IntArray:
        """``[n]`` different numbers outside ``taken``."""
        top = max(self.config.high, self.config.low + n + len(taken) - 1, int(taken.max(initial=0)))
        free = np.setdiff1d(np.arange(self.config.low, top + 1), taken)
        if len(free) < n:
            free = np.concatenate([free, np.arange(top + 1, top + 1 + n - len(free))])
        return self.drawn(len(taken)).permutation(free)[:n]
