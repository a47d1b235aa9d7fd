"""Hybrid: the shared part of one kind of name, then the whole of another.

The HID of Hua et al. 2023 (arXiv 2305.06569): ``collaborative`` or ``semantic`` or ``sequential`` with ``independent``
keeps what items share and ends with a word of the item's own; ``semantic`` with ``collaborative``, or the reverse,
joins two meanings. What the first name only counts (its place in a leaf) is left out: the second tells items apart.

Where we depart, and why: a model reads a name either as new words or as text, so digits become new words (``<7>``)
where they stand before new words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from palate.core import store
from palate.core.codes import Codes, Tokens
from palate.core.config import Config, Part
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError
from palate.core.naming import NamesItems, padded
from palate.core.ragged import IntArray, Ragged
from palate.core.run import Run


class HybridConfig(Config):
    first: Part = Part(name="collaborative")
    """The tokenizer that begins a name."""
    second: Part = Part(name="independent")
    """The tokenizer that ends it."""

    @model_validator(mode="after")
    def _two_kinds(self) -> Self:
        if self.first.name == self.second.name:
            raise ValueError(f"first and second are both '{self.first.name}'; name two kinds")
        return self


class Hybrid(NamesItems[HybridConfig]):
    """Holds the two tokenizers; both are saved with it."""

    config_type = HybridConfig
    in_order_of_ids = False

    def __init__(
        self, config: HybridConfig | None = None, first: NamesItems[Any] | None = None,
        second: NamesItems[Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config)
        self.halves = (first, second)

    def name(self, train: Dataset, run: Run) -> Codes:
        first, second = self._halves()
        first.fit(train, run)
        second.fit(train, run)
        self.fitted_on = train.fingerprint if first.reads_interactions or second.reads_interactions else store.NO_DATA
        return self._joined(())

    def name_new(self, catalogue: Dataset, item_rows: IntArray) -> Codes:
        for half in self._halves():
            half.add(catalogue)
        before = self.codes
        joined = self._joined(before.vocabulary)
        return before.grown(joined.tokens[item_rows], joined.vocabulary[len(before.vocabulary) :])

    @property
    def parts(self) -> dict[str, store.Savable]:
        first, second = self._halves()
        return {"first": first, "second": second}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        self._halves()  # a folder without them is none of a hybrid

    def _halves(self) -> tuple[NamesItems[Any], NamesItems[Any]]:
        if None in self.halves:
            raise ConfigError("a hybrid needs its two tokenizers: build it through systems.component, or pass both")
        return cast(tuple[NamesItems[Any], NamesItems[Any]], self.halves)

    def _joined(self, known: Sequence[str]) -> Codes:
        """Names of all items in a vocabulary that begins with the ``known`` words."""
        first, second = self._halves()
        if not second.codes.atomic:
            raise ConfigError(
                f"'{self.config.second.name}' writes plain text and cannot end a hybrid name; "
                "let it begin the name, or end with independent, collaborative or semantic"
            )
        words = {word: row for row, word in enumerate(known)}
        kept = np.where(np.arange(first.codes.tokens.shape[1]) < first.path_lengths()[:, None], first.codes.tokens, -1)
        halves = [_renumbered(kept, first.codes, words), _renumbered(second.codes.tokens, second.codes, words)]
        both = np.concatenate(halves, 1)
        lengths = (both >= 0).sum(1)
        tokens = padded(Ragged.from_lengths(both[both >= 0], lengths))
        return Codes(tokens, tuple(words), True, second.codes.live)


def _renumbered(tokens: Tokens, codes: Codes, words: dict[str, int]) -> Tokens:
    """The same tokens as rows of ``words``, which grows; words that no kept token uses are left out."""
    used = np.zeros(len(codes.vocabulary), dtype=bool)
    used[tokens[tokens >= 0]] = True
    row_of = np.full(len(codes.vocabulary) + 1, -1, dtype=np.int32)  # the last one serves the -1 of shorter names
    for token in np.flatnonzero(used).tolist():
        word = codes.vocabulary[token]
        row_of[token] = words.setdefault(word if codes.atomic else f"<{word}>", len(words))
    return row_of[tokens]
