"""Rows of different lengths without padding: views into one flat array."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Ragged:
    """Row ``i`` is ``values[starts[i]:stops[i]]``. Rows may overlap, so every prefix of a log costs two numbers.

    Shapes: values ``[E]`` of any integer type, starts and stops ``[B]`` int64.
    """

    values: npt.NDArray[np.integer]
    starts: IntArray
    stops: IntArray

    @classmethod
    def of(cls, rows: Iterable[Sequence[int] | npt.NDArray[np.integer]]) -> Ragged:
        """From a list of lists."""
        parts = [np.asarray(row, dtype=np.int64).reshape(-1) for row in rows]
        lengths = np.fromiter((len(part) for part in parts), dtype=np.int64, count=len(parts))
        values = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return cls.from_lengths(values, lengths)

    @classmethod
    def from_lengths(cls, values: npt.NDArray[np.integer], lengths: npt.NDArray[np.integer]) -> Ragged:
        """Consecutive rows of the given lengths."""
        stops = np.cumsum(lengths, dtype=np.int64)
        return cls(values, stops - lengths, stops)

    @classmethod
    def from_offsets(cls, values: npt.NDArray[np.integer], offsets: npt.NDArray[np.integer]) -> Ragged:
        """Consecutive rows; ``offsets`` is ``[B + 1]``."""
        offsets = np.asarray(offsets, dtype=np.int64)
        return cls(values, offsets[:-1], offsets[1:])

    @classmethod
    def empty(cls, n_rows: int) -> Ragged:
        zeros = np.zeros(n_rows, dtype=np.int64)
        return cls(np.zeros(0, dtype=np.int64), zeros, zeros)

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[npt.NDArray[np.integer]]:
        return (self.values[a:b] for a, b in zip(self.starts, self.stops, strict=True))

    def row(self, i: int) -> npt.NDArray[np.integer]:
        """Row ``i`` as a view."""
        return self.values[self.starts[i] : self.stops[i]]

    def __getitem__(self, rows: slice | npt.NDArray[np.integer]) -> Ragged:
        """Some rows, still views into the same values."""
        return Ragged(self.values, self.starts[rows], self.stops[rows])

    @property
    def lengths(self) -> IntArray:
        return self.stops - self.starts

    def last(self, n: int) -> Ragged:
        """At most the last ``n`` values of each row."""
        return Ragged(self.values, np.maximum(self.starts, self.stops - n), self.stops)

    def flat_positions(self) -> IntArray:
        """Where each value of each row lies in ``values``, row after row: ``[sum of lengths]``."""
        lengths = self.lengths
        total = int(lengths.sum())
        ends = np.cumsum(lengths)
        return np.arange(total, dtype=np.int64) + np.repeat(self.starts - (ends - lengths), lengths)

    def flat(self) -> npt.NDArray[np.integer]:
        """The values of all rows one after another: ``[sum of lengths]``. A view where the rows are consecutive."""
        if len(self) and np.array_equal(self.stops[:-1], self.starts[1:]):
            return self.values[self.starts[0] : self.stops[-1]]
        return self.values[self.flat_positions()]

    def row_numbers(self) -> IntArray:
        """The row of each value of ``flat()``: ``[sum of lengths]``."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def offsets(self) -> IntArray:
        """``[B + 1]`` offsets of the rows in ``flat()``, the layout of a CSR matrix."""
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.lengths)])

    def where(self, keep: npt.NDArray[np.bool_]) -> Ragged:
        """Only the values whose flag in ``keep`` (aligned with ``flat()``) is set; rows keep their order."""
        lengths = np.bincount(self.row_numbers()[keep], minlength=len(self))
        return Ragged.from_lengths(self.flat()[keep], lengths)

    def joined(self, other: Ragged) -> Ragged:
        """Each row followed by the same row of ``other``."""
        order = np.argsort(np.concatenate([self.row_numbers(), other.row_numbers()]), kind="stable")
        return Ragged.from_lengths(np.concatenate([self.flat(), other.flat()])[order], self.lengths + other.lengths)

    def distinct(self, n_values: int) -> Ragged:
        """Each row as an ascending set, without values below 0 or at and beyond ``n_values``."""
        flat = self.flat().astype(np.int64, copy=False)
        rows = self.row_numbers()
        inside = (flat >= 0) & (flat < n_values)
        if not inside.all():
            flat, rows = flat[inside], rows[inside]
        keys = rows * n_values + flat
        if (keys[1:] <= keys[:-1]).any():
            keys = np.sort(keys)
            keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
            rows, flat = np.divmod(keys, n_values)
        return Ragged.from_lengths(flat, np.bincount(rows, minlength=len(self)))

    def without(self, other: Ragged) -> Ragged:
        """Each row without the values that the same row of ``other`` holds."""
        reach = 1 + max(int(part.max(initial=0)) for part in (self.flat(), other.flat()))
        unwanted = other.distinct(reach)
        keys = unwanted.row_numbers() * reach + unwanted.flat()
        flat = self.flat().astype(np.int64, copy=False)
        asked = self.row_numbers() * reach + flat
        places = np.searchsorted(keys, asked)
        held = np.zeros(len(asked), dtype=bool)
        within = places < len(keys)
        held[within] = keys[places[within]] == asked[within]
        return self.where(~held | (flat < 0))
