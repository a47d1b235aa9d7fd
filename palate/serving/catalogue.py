"""What can be looked up about a run's items and users: search, one item whole, one user whole, what can be filtered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from palate.ask import Asker
from palate.core.dataset import Dataset
from palate.core.errors import UnknownIdError, nearest
from palate.core.ragged import IntArray
from palate.filters import rows_passing
from palate.questions import Filter, Later

NOT_SEARCHED = {"image"}
NO_FACET = {"item", "title", "text", "image"}
MOST_VALUES = 60
"""A column with more values than this is no choice that a person would scroll through."""
SHOWN_EVENTS = 1000
SHOWN_LETTERS = 2000

Value = str | int | float | bool | list[str] | None


@dataclass(frozen=True)
class Found:
    """An item in a list. ``events`` is how many the run learned from; ``about`` is what stands in its other columns."""

    item: str
    title: str
    about: dict[str, Value]
    events: int
    added: bool
    retired: bool


@dataclass(frozen=True)
class FoundItems:
    """Some of the ``total`` items that were found, best first."""

    total: int
    items: list[Found]


@dataclass(frozen=True)
class ItemPage(Found):
    """An item whole; ``name`` is what a system that names items calls it."""

    text: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Choice:
    value: str
    items: int


@dataclass(frozen=True)
class Facet:
    """A column that can be filtered: by its values, or from ``low`` to ``high``."""

    column: str
    values: list[Choice]
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class FoundUser:
    user: str
    events: int


@dataclass(frozen=True)
class FoundUsers:
    """Some of the ``total`` users that were found."""

    total: int
    users: list[FoundUser]


@dataclass(frozen=True)
class PastEvent:
    """``time`` in milliseconds where it is known; ``later`` is True for an event that was sent to this server."""

    item: str
    title: str
    time: int | None
    later: bool


@dataclass(frozen=True)
class UserPage:
    """The newest events of a user, oldest first, and what else the data say of them."""

    user: str
    about: dict[str, Value]
    total: int
    events: list[PastEvent]


class Catalogue:
    """Items and users of one run, as its ``Asker`` knows them now. Threads may share it: tables are never changed."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._index: tuple[Dataset, pl.DataFrame] | None = None

    # -- items -------------------------------------------------------------------------------------------------------

    def search(self, said: str, filters: Sequence[Filter], start: int, limit: int) -> FoundItems:
        """Items in which every word of ``said`` occurs; those with all in the title first, then the most met."""
        living = self._asker.living
        rows = rows_passing(living.items, filters)
        table = self._searchable(living)[rows]
        words = said.casefold().split()
        if words:
            table = table.filter(pl.all_horizontal(pl.col("all").str.contains(word, literal=True) for word in words))
            in_title = pl.all_horizontal(pl.col("title").str.contains(word, literal=True) for word in words)
            begins = pl.col("title").str.starts_with(" ".join(words))
            table = table.sort(begins, in_title, "events", "row", descending=[True, True, True, False])
        else:
            table = table.sort("events", "row", descending=[True, False])
        shown = table[start : start + limit]["row"].to_numpy()
        return FoundItems(table.height, [self.found(int(row)) for row in shown])

    def these(self, names: Sequence[str]) -> FoundItems:
        """Items by id or exact title. Raises ``UnknownIdError``."""
        return FoundItems(len(names), [self.found(self._asker.item_row(name)) for name in names])

    def found(self, row: int) -> Found:
        """One item as lists show it."""
        asker, living = self._asker, self._asker.living
        return Found(
            asker.item_ids[row], asker.titles[row], _about(living.items, row, NO_FACET), self._events(row),
            row >= asker.run.items.height, bool(np.isin(row, asker.retired)),
        )  # fmt: skip

    def page(self, row: int) -> ItemPage:
        """One item with everything that is known of it."""
        items = self._asker.living.items
        text = items["text"][row] if "text" in items.columns else None
        codes = self._codes
        name = None if codes is None or row >= codes.n_items else codes.spell(row)
        return ItemPage(**vars(self.found(row)), text=None if text is None else str(text), name=name)

    def facets(self) -> list[Facet]:
        """Columns by which a person would filter."""
        items, found = self._asker.living.items, []
        for column, kind in items.schema.items():
            if column in NO_FACET or items[column].null_count() == items.height:
                continue
            if kind.is_numeric():
                low, high = items[column].min(), items[column].max()
                if low != high:
                    found.append(Facet(column, [], float(low), float(high)))  # type: ignore[arg-type]
                continue
            values = items[column].explode() if kind == pl.List(pl.String) else items[column]
            if values.dtype not in (pl.String, pl.Boolean):
                continue
            counts = values.drop_nulls().cast(pl.String).value_counts(sort=True, name="items")
            if 1 < counts.height <= MOST_VALUES:
                rows = counts.sort("items", column, descending=[True, False]).iter_rows()
                found.append(Facet(column, [Choice(value, n) for value, n in rows]))
        return found

    def _searchable(self, living: Dataset) -> pl.DataFrame:
        """``row``, ``title`` and ``all`` in small letters, ``events``; made anew when the catalogue has grown."""
        index = self._index
        if index is None or index[0] is not living:
            items = living.items
            texts = []
            for column, kind in items.schema.items():
                if column in NOT_SEARCHED:
                    continue
                if kind == pl.List(pl.String):
                    texts.append(pl.col(column).list.join(" "))
                elif kind == pl.String or kind.is_integer():
                    texts.append(pl.col(column).cast(pl.String))
            table = items.select(
                pl.int_range(pl.len()).alias("row"),
                pl.Series(living.titles).str.to_lowercase().alias("title"),
                pl.concat_str(texts, separator=" ", ignore_nulls=True).str.to_lowercase().alias("all"),
                pl.Series(self._counts(items.height)).alias("events"),
            )
            self._index = index = (living, table)
        return index[1]

    @cached_property
    def _taught(self) -> IntArray:
        """``[N]`` how many events of each item the run learned from."""
        asker = self._asker
        counts = asker.run.taught["item"].value_counts(name="n")
        found = np.zeros(asker.run.items.height, dtype=np.int64)
        for item, n in counts.iter_rows():
            found[asker.row_of[item]] = n
        return found

    def _counts(self, n: int) -> IntArray:
        return np.pad(self._taught, (0, n - len(self._taught)))

    def _events(self, row: int) -> int:
        return int(self._taught[row]) if row < len(self._taught) else 0

    @property
    def _codes(self) -> Any:
        tokenizer = getattr(self._asker.system, "parts", {}).get("tokenizer")
        return None if tokenizer is None else tokenizer.codes

    # -- users -------------------------------------------------------------------------------------------------------

    def users(self, said: str, start: int, limit: int) -> FoundUsers:
        """Users whose id holds ``said``, those that begin so first."""
        said = said.casefold()
        table = self._users.filter(pl.col("small").str.contains(said, literal=True)) if said else self._users
        table = table.sort(pl.col("small").str.starts_with(said), "row", descending=[True, False])
        rows = table[start : start + limit].select("user", "events").iter_rows()
        return FoundUsers(table.height, [FoundUser(user, events) for user, events in rows])

    @cached_property
    def _users(self) -> pl.DataFrame:
        dataset = self._asker.dataset
        return pl.DataFrame({
            "row": np.arange(dataset.n_users), "user": dataset.users["user"],
            "small": dataset.users["user"].str.to_lowercase(), "events": dataset.histories.lengths,
        })  # fmt: skip

    def user(self, user: str, later: Sequence[Later]) -> UserPage:
        """What is known of a user; ``later`` are the events that this server was sent. Raises ``UnknownIdError``."""
        asker, dataset = self._asker, self._asker.dataset
        (row,) = (int(one) for one in dataset.user_rows_of([user], missing="negative"))
        if row < 0 and not later:
            raise UnknownIdError(f"no user '{user[:80]}' in the data{nearest(user, dataset.user_ids[:2000])[:120]}")
        past: list[tuple[int, int | None, bool]] = []
        if row >= 0:
            here = slice(int(dataset.histories.starts[row]), int(dataset.histories.stops[row]))
            times = None if dataset.times is None else dataset.times[here].tolist()
            rows = dataset.item_rows[here].tolist()
            past = [(item, None if times is None else times[i], False) for i, item in enumerate(rows)]
        past += [(asker.row_of[event.item], event.time, True) for event in later if event.item in asker.row_of]
        if all(time is not None for _, time, _ in past):
            past.sort(key=lambda event: event[1] or 0)
        events = [PastEvent(asker.item_ids[item], asker.titles[item], time, new) for item, time, new in past]
        about = _about(dataset.users, row, {"user"}) if row >= 0 else {}
        return UserPage(user, about, len(events), events[-SHOWN_EVENTS:])


def _about(table: pl.DataFrame, row: int, without: set[str]) -> dict[str, Value]:
    """What stands in one row of a table, as JSON says it; what is not known is left out."""
    found: dict[str, Value] = {}
    for column, value in table.row(row, named=True).items():
        if column in without or value is None:
            continue
        if isinstance(value, list):
            found[column] = [str(one)[:SHOWN_LETTERS] for one in value if one is not None]
        elif isinstance(value, (bool, int)) or (isinstance(value, float) and np.isfinite(value)):
            found[column] = value
        elif not isinstance(value, float):
            found[column] = str(value)[:SHOWN_LETTERS]
    return found
