"""What is known: who met which item when, and what is known about items and users."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from palate.core.errors import DataError, UnknownIdError, nearest
from palate.core.ragged import IntArray, Ragged

if TYPE_CHECKING:
    import polars as pl

Clock = Literal["unix", "day", "order"]


@dataclass(frozen=True)
class About:
    """Where a dataset comes from and how it was read; written to ``dataset.toml``."""

    title: str = ""
    source: str = ""
    licence: str = "unknown"
    checksum: str = ""
    positive: str = "every event"
    ties: str = "time, then file order"
    duplicates: str = "kept"
    simulated: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Frozen tables that speak rows inside and ids outside.

    interactions
        one row an event: ``user_row`` and ``item_row`` (int32), ``time`` (int64 ms, null = unknown; with
        ``clock="order"`` the place in the user's history), optional ``rating``, ``review``, ``kind``, ``weight``.
        Sorted by user row, then time, then file order, so a history is a slice.
    items, users
        row ``i`` of the table describes item (user) row ``i``; ``item`` / ``user`` hold the outside ids as text.
    clock
        ``unix`` (exact), ``day`` (dates only) or ``order`` (only the order is known).
    """

    name: str
    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    clock: Clock = "unix"
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        for table, column in (
            (self.interactions, "user_row"),
            (self.interactions, "item_row"),
            (self.items, "item"),
            (self.users, "user"),
        ):
            if column not in table.columns:
                raise DataError(f"dataset '{self.name}' lacks the column '{column}'")
        rows = self.user_rows
        if len(rows) and (np.diff(rows) < 0).any():
            raise DataError(f"dataset '{self.name}': interactions must be sorted by user_row, then time")

    @property
    def n_users(self) -> int:
        return self.users.height

    @property
    def n_items(self) -> int:
        return self.items.height

    @property
    def n_interactions(self) -> int:
        return self.interactions.height

    @cached_property
    def user_rows(self) -> npt.NDArray[np.int32]:
        """``[E]`` the user row of each event, ascending."""
        return self.interactions["user_row"].to_numpy()

    @cached_property
    def item_rows(self) -> npt.NDArray[np.int32]:
        """``[E]`` the item row of each event."""
        return self.interactions["item_row"].to_numpy()

    @cached_property
    def times(self) -> IntArray | None:
        """``[E]`` milliseconds, or None where only the order is known or a time is missing."""
        if self.clock == "order" or "time" not in self.interactions.columns:
            return None
        column = self.interactions["time"]
        return None if column.null_count() else column.to_numpy()

    @cached_property
    def histories(self) -> Ragged:
        """The item rows of each user, oldest first: one ragged row a user."""
        offsets = np.searchsorted(self.user_rows, np.arange(self.n_users + 1))
        return Ragged.from_offsets(self.item_rows, offsets)

    @cached_property
    def item_counts(self) -> IntArray:
        """``[N]`` how many events each item has."""
        return np.bincount(self.item_rows, minlength=self.n_items)

    @cached_property
    def item_ids(self) -> list[str]:
        return self.items["item"].to_list()

    @cached_property
    def user_ids(self) -> list[str]:
        return self.users["user"].to_list()

    @cached_property
    def titles(self) -> list[str]:
        """``[N]`` what a person reads: the title, else the id."""
        if "title" not in self.items.columns:
            return self.item_ids
        return [
            title or f"item {item}" for title, item in zip(self.items["title"].to_list(), self.item_ids, strict=True)
        ]

    @cached_property
    def _item_row_of(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self.item_ids)}

    @cached_property
    def _user_row_of(self) -> dict[str, int]:
        return {user: row for row, user in enumerate(self.user_ids)}

    def item_rows_of(self, ids: Iterable[str], *, missing: Literal["error", "negative"] = "error") -> IntArray:
        """Outside item ids → rows. An unknown id raises ``UnknownIdError``, or gives -1."""
        return _rows_of(self._item_row_of, ids, "item", missing)

    def user_rows_of(self, ids: Iterable[str], *, missing: Literal["error", "negative"] = "error") -> IntArray:
        """Outside user ids → rows. An unknown id raises ``UnknownIdError``, or gives -1."""
        return _rows_of(self._user_row_of, ids, "user", missing)

    def keeping(self, events: npt.NDArray[np.bool_] | IntArray) -> Dataset:
        """The same users and items with only some events (a mask or ascending positions)."""
        mask = np.asarray(events)
        kept = self.interactions.filter(mask) if mask.dtype == np.bool_ else self.interactions[mask]
        return replace(self, interactions=kept)

    def with_items_in(self, order: IntArray) -> Dataset:
        """The same with its items in another order: row ``i`` is what was row ``order[i]``, a permutation."""
        import polars as pl

        row_of = np.argsort(order)
        rows = pl.Series("item_row", row_of[self.item_rows], dtype=pl.Int32)
        return replace(self, items=self.items[order], interactions=self.interactions.with_columns(rows))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of who met what when. What is fitted on these events writes it down; the leak check compares it."""
        digest = hashlib.blake2b(digest_size=16)
        for table, column in ((self.users, "user"), (self.items, "item")):
            digest.update("\n".join(table[column].to_list()).encode())
            digest.update(b"\0")
        digest.update(np.ascontiguousarray(self.user_rows, dtype=np.int32).tobytes())
        digest.update(np.ascontiguousarray(self.item_rows, dtype=np.int32).tobytes())
        if self.times is not None:
            digest.update(np.ascontiguousarray(self.times).tobytes())
        return digest.hexdigest()


def _rows_of(row_of: dict[str, int], ids: Iterable[str], what: str, missing: str) -> IntArray:
    asked: Sequence[str] = list(ids)
    rows = np.fromiter((row_of.get(str(name), -1) for name in asked), dtype=np.int64, count=len(asked))
    if missing == "error" and (rows < 0).any():
        unknown = str(asked[int(np.flatnonzero(rows < 0)[0])])
        hint = nearest(unknown, row_of) if len(row_of) <= 200 else ""
        raise UnknownIdError(f"no {what} '{unknown}' in this dataset ({len(row_of):,} {what}s known){hint[:80]}")
    return rows
