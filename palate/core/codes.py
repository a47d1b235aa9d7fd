"""The names of a catalogue's items: a short row of tokens for each, no two alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from palate.core.errors import DataError
from palate.core.ragged import IntArray

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Codes:
    """Names of N items, at most K tokens each, in a vocabulary of V tokens.

    tokens      ``[N, K]`` int32 rows of the vocabulary; after the last token of a shorter name stands -1
    vocabulary  ``[V]`` how each token reads, each one different. Where the tokens of different places mean different
                things, they are different tokens: place and number are both in the name
    atomic      a text model takes each token as one new word (``<a_12>``); else a name is the plain text that its
                tokens spell together, which the model's own text tokenizer splits
    live        ``[N]`` False for an item that was retired: it keeps its name, and decodes to nothing
    """

    tokens: Tokens
    vocabulary: tuple[str, ...]
    atomic: bool
    live: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise DataError("two tokens of a vocabulary of item names read alike")
        if len(self.live) != len(self.tokens):
            raise DataError(f"{len(self.tokens)} names need as many flags, not {len(self.live)}")
        if self.tokens.size and int(self.tokens.max()) >= len(self.vocabulary):
            raise DataError("an item's name uses a token that is not in the vocabulary")
        ended = self.tokens < 0
        if (ended[:, :-1] & ~ended[:, 1:]).any() or ended[:, :1].any():
            raise DataError("an item's name is empty or has a hole")
        if len(self._sorted) > 1 and (self._sorted[1:] == self._sorted[:-1]).any():
            first = int(np.flatnonzero(self._sorted[1:] == self._sorted[:-1])[0])
            raise DataError(f"items {self._order[first]} and {self._order[first + 1]} have the same name")

    @property
    def n_items(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> IntArray:
        """``[N]`` tokens of each name."""
        return (self.tokens >= 0).sum(1)

    def encode(self, item_rows: IntArray) -> Tokens:
        """``[n, K]`` the names of these items."""
        return self.tokens[item_rows]

    def decode(self, tokens: npt.NDArray[np.integer]) -> IntArray:
        """``[n]`` the items that ``tokens`` ``[n, K]`` name; -1 where they name none, or one that was retired."""
        asked = _as_bytes(np.ascontiguousarray(tokens, dtype=np.int32), self.tokens.shape[1])
        if not self.n_items:
            return np.full(len(asked), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self._sorted, asked), self.n_items - 1)
        found = self._order[place].astype(np.int64)
        return np.where((self._sorted[place] == asked) & self.live[found], found, -1)

    def spell(self, item_row: int) -> str:
        """The name of one item as text."""
        return "".join(self.vocabulary[token] for token in self.tokens[item_row] if token >= 0)

    def grown(self, tokens: Tokens, more_vocabulary: Sequence[str] = ()) -> Codes:
        """The same names and, after them, those of new items: ``tokens`` ``[n, K']``, in the grown vocabulary."""
        width = max(self.tokens.shape[1], tokens.shape[1])
        joined = np.full((self.n_items + len(tokens), width), -1, dtype=np.int32)
        joined[: self.n_items, : self.tokens.shape[1]] = self.tokens
        joined[self.n_items :, : tokens.shape[1]] = tokens
        live = np.concatenate([self.live, np.ones(len(tokens), dtype=bool)])
        return Codes(joined, (*self.vocabulary, *more_vocabulary), self.atomic, live)

    def begins(self, other: Codes) -> bool:
        """Whether the items named here have the same names in ``other``, which may name more."""
        n, width = self.tokens.shape
        old = other.tokens[:n]
        return (
            old.shape[0] == n and old.shape[1] >= width and np.array_equal(old[:, :width], self.tokens)
            and bool((old[:, width:] < 0).all()) and other.vocabulary[: len(self.vocabulary)] == self.vocabulary
        )  # fmt: skip

    def retired(self, item_rows: IntArray, *, back: bool = False) -> Codes:
        """The same names without these items, or with them ``back``."""
        rows = np.asarray(item_rows)
        if len(rows) and not (rows.min() >= 0 and rows.max() < self.n_items):
            raise DataError(f"only item rows from 0 to {self.n_items - 1} can be retired")
        live = self.live.copy()
        live[rows] = back
        return replace(self, live=live)

    @cached_property
    def _bytes(self) -> npt.NDArray[np.void]:
        return _as_bytes(self.tokens, self.tokens.shape[1])

    @cached_property
    def _order(self) -> IntArray:
        return np.argsort(self._bytes, kind="stable")

    @cached_property
    def _sorted(self) -> npt.NDArray[np.void]:
        return self._bytes[self._order]


def _as_bytes(tokens: Tokens, width: int) -> npt.NDArray[np.void]:
    """One key a row; narrower rows are filled up."""
    if tokens.shape[1] < width:
        tokens = np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])), constant_values=-1)
    if tokens.shape[1] > width:
        raise DataError(f"names have at most {width} tokens, not {tokens.shape[1]}")
    return np.ascontiguousarray(tokens.astype(">u4")).view(f"S{4 * width}").ravel() if width else np.zeros(0, "S1")
