"""What the prompts of each kind are about: rows with what is told, and the events that were read for it.

Prompts see the train part alone: ``check_rows`` proves it, id by id, and within a fit so does ``core.fence``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from palate.annotation.steps import window
from palate.annotation.tasks import Row
from palate.core.annotations import ATTRIBUTES, TRAITS, ItemProfile
from palate.core.dataset import Dataset
from palate.core.errors import MisuseError
from palate.core.fence import Fence
from palate.core.ragged import IntArray, Ragged
from palate.core.split import Split

HISTORY, REVIEWS, LONGEST = 20, 5, 600
"""Newest events of a user, newest reviews of an item, and characters of a text that a prompt holds at most."""
SILENT = ("item", "image", "available", "invented")
"""Columns of the item table that say nothing about what an item is."""


def rows_of(
    kind: str, train: Dataset, most: int | None = None, names: Sequence[str] = (),
    of_items: Sequence[ItemProfile] | None = None,
) -> list[Row]:  # fmt: skip
    """What ``palate annotate`` asks about: events with a review, all events, users with events, or items; the first
    ``most``. ``names`` are the attributes or traits asked for; ``of_items`` the profiles of all items, by which the
    prompts of user profiles tell them."""
    if kind == "intention":
        return intention_rows(train, reviewed(train)[:most])
    if kind == "step-preferences":
        return step_rows(train, np.arange(train.n_interactions)[:most])
    items = np.arange(train.n_items)[:most]
    if kind == "item-profile":
        return item_rows(train, items)
    if kind == "item-attributes":
        return attribute_rows(train, items, names or ATTRIBUTES)
    users = np.flatnonzero(train.histories.lengths > 0)[:most]
    if kind == "user-traits":
        return trait_rows(train, users, names or TRAITS)
    if kind in ("preference", "user-profile"):
        return user_rows(train, events_of(train, users), of_items if kind == "user-profile" else None)
    raise MisuseError(f"'{kind}' is asked within a fit, among candidates: annotate writes no table of it")


def profiled_first(kind: str, train: Dataset, most: int | None = None) -> list[Row]:
    """The rows of the item profiles from which ``kind`` is written: for user profiles of all items, or of those that
    the prompts of the first ``most`` users show; none for another kind."""
    if kind != "user-profile":
        return []
    items = np.arange(train.n_items)
    if most is not None:
        shown = [event for row in rows_of(kind, train, most) for event in row.events]
        items = np.unique(train.item_rows[np.array(shown, dtype=np.int64)])
    return item_rows(train, items)


def reviewed(train: Dataset) -> IntArray:
    """Positions of the events that have a review."""
    if "review" not in train.interactions.columns:
        return np.zeros(0, dtype=np.int64)
    said = train.interactions["review"].cast(pl.String).fill_null("").str.strip_chars() != ""
    return np.flatnonzero(said.to_numpy())


def events_of(train: Dataset, users: IntArray) -> Ragged:
    """Positions in ``train.interactions`` of each user's events, oldest first."""
    histories = train.histories
    return Ragged(np.arange(train.n_interactions), histories.starts[users], histories.stops[users])


def intention_rows(train: Dataset, events: IntArray) -> list[Row]:
    """A row an event: the item and the review; one without a review tells none."""
    items, reviews = _items(train), _column(train.interactions, "review")
    return [
        Row(event, items[int(train.item_rows[event])] | {"review": reviews[event]}, (event,))
        for event in np.asarray(events).tolist()
    ]


def item_rows(train: Dataset, item_rows: IntArray) -> list[Row]:
    """A row an item: its texts and its newest reviews."""
    items, reviews = _items(train), _column(train.interactions, "review")
    said = reviewed(train)
    of_item: dict[int, list[int]] = {}
    for event, item in zip(said.tolist(), train.item_rows[said].tolist(), strict=True):
        of_item.setdefault(item, []).append(event)
    times = train.times if train.times is not None else np.arange(train.n_interactions)
    rows = []
    for item in np.asarray(item_rows).tolist():
        newest = sorted(of_item.get(item, []), key=lambda event: int(times[event]))[-REVIEWS:]
        rows.append(Row(item, items[item] | {"reviews": [reviews[event] for event in newest]}, tuple(newest)))
    return rows


def user_rows(train: Dataset, histories: Ragged, of_items: Sequence[ItemProfile] | None = None) -> list[Row]:
    """A row a user: the newest items with ratings and reviews; ``histories`` hold positions of events. With the
    profiles of all items, an item is told by its title and its profile."""
    items, reviews = _items(train), _column(train.interactions, "review")
    if of_items is not None:
        items = [
            {"title": item["title"], "enjoyed by": profile.summarization}
            for item, profile in zip(items, of_items, strict=True)
        ]
    ratings = train.interactions["rating"].to_list() if "rating" in train.interactions.columns else None
    rows = []
    for events in histories.last(HISTORY):
        lines = []
        for event in events.tolist():
            line = items[int(train.item_rows[event])] | {"review": reviews[event]}
            if ratings is not None and ratings[event] is not None:
                line["rating"] = float(ratings[event])
            lines.append({key: value for key, value in line.items() if value})
        user = int(train.user_rows[events[0]]) if len(events) else -1
        rows.append(Row(user, {"chosen": lines}, tuple(events.tolist())))
    return rows


def step_rows(dataset: Dataset, events: IntArray) -> list[Row]:
    """A row an event: it and the few before it, with ratings and reviews."""
    told = user_rows(dataset, window(dataset, events))
    return [Row(int(event), row.fields, row.events) for event, row in zip(events, told, strict=True)]


def attribute_rows(train: Dataset, items: IntArray, names: Sequence[str]) -> list[Row]:
    """A row an item: every column that says something of it, and the attributes that are asked for."""
    columns = {name: _column(train.items, name) for name in train.items.columns if name not in SILENT}
    return [
        Row(item, {"known": {name: said[item] for name, said in columns.items() if said[item]},
                   "asked for": list(names)}, ())
        for item in np.asarray(items).tolist()
    ]  # fmt: skip


def trait_rows(train: Dataset, users: IntArray, names: Sequence[str]) -> list[Row]:
    """A row a user: the newest items with ratings and reviews, and the traits that are asked for."""
    told = user_rows(train, events_of(train, users))
    return [
        Row(user, {"met": row.fields["chosen"], "asked for": list(names)}, row.events)
        for user, row in zip(np.asarray(users).tolist(), told, strict=True)
    ]


def choice_rows(train: Dataset, users: IntArray, offered: IntArray) -> list[Row]:
    """A row a user: the newest items with ratings and reviews, and the ``offered`` ``[n, C]`` ones (-1 = no more), each
    with its place."""
    told, items = user_rows(train, events_of(train, users)), _items(train)
    rows = []
    for user, row, some in zip(np.asarray(users).tolist(), told, offered.tolist(), strict=True):
        candidates = [{"index": place, **items[item]} for place, item in enumerate(one for one in some if one >= 0)]
        rows.append(Row(user, {"met": row.fields["chosen"], "candidates": candidates}, row.events))
    return rows


def _items(train: Dataset) -> list[dict[str, Any]]:
    """What is known of each item."""
    titles, texts = _column(train.items, "title"), _column(train.items, "text")
    categories = _column(train.items, "category")
    return [
        {"title": title, "description": text, "category": category}
        for title, text, category in zip(titles, texts, categories, strict=True)
    ]


def _column(table: pl.DataFrame, name: str) -> list[str]:
    """A column as texts, each cut; empty where it is missing."""
    if name not in table.columns:
        return [""] * table.height
    column = table[name]
    if column.dtype == pl.List:
        column = column.cast(pl.List(pl.String)).list.join(", ")
    return [text.strip()[:LONGEST] for text in column.cast(pl.String).fill_null("").to_list()]


# -- proof -------------------------------------------------------------------------------------------------------------


def check_rows(rows: Sequence[Row], train: Dataset, split: Split) -> str:
    """Prove by ids that no prompt has read an event that validation or test asks about. Raises ``LeakError``.

    An event is a user's id, an item's id and a time; one that is asked may be read only where the train part holds
    such an event of its own.
    """
    fence = Fence(split)
    read = fence.check(train, events_read(rows))
    return f"{len(rows):,} prompts read {read:,} events, all of the train part; {fence.n_asked:,} are asked later"


def events_read(rows: Sequence[Row]) -> IntArray:
    """Positions of all events that the prompts of these rows show."""
    return np.array([event for row in rows for event in row.events], dtype=np.int64)
