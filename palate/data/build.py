"""Tables to a ``Dataset``: positives, duplicates, k-core, some users, dense rows, histories in order. In this order,
always."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.core.dataset import About, Clock, Dataset
from palate.core.errors import DataError, nearest
from palate.core.ragged import IntArray
from palate.data.numbering import Coded, core_mask, drawn_mask, encode, number
from palate.data.order import HistoryOrder, history_order
from palate.data.positives import positive_filter

Duplicates = Literal["keep", "first", "last"]

OPTIONAL = {"rating": pl.Float64, "review": pl.String, "kind": pl.String, "weight": pl.Float64}
"""What an event may say beside who, what and when; further columns are kept as they are."""

DUPLICATES_SAID = {
    "keep": "kept",
    "first": "the earliest event of a user and an item is kept",
    "last": "the latest event of a user and an item is kept",
}


def dataset_from(
    name: str,
    interactions: pl.DataFrame | pl.LazyFrame,
    *,
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
    clock: Clock = "unix",
    about: About | None = None,
    min_count: int = 0,
    positive: str | None = None,
    duplicates: Duplicates = "keep",
    keep_unseen: bool | None = None,
    some_users: int | None = None,
) -> Dataset:
    """A frozen dataset from a log of events and what is known about items and users.

    interactions
        columns ``user`` and ``item`` (text or whole numbers), ``time`` (int64 ms, dates, null or absent), optionally
        ``rating``, ``review``, ``kind``, ``weight``. A lazy frame is scanned once.
    items, users
        tables with the column ``item`` (``user``); their order is the order of rows, ids they lack follow by first
        appearance among the events kept.
    positive
        which events count, such as ``rating>=4`` (see ``palate.data.positives``). None = every event.
    duplicates
        of several events of one user with one item: keep all, the first or the last (time, then file order).
    min_count
        the k of an iterated k-core, after positives and duplicates. 0 = no filter.
    keep_unseen
        whether listed items and users without an event stay. None = yes, unless there is a k-core or only some users.
    some_users
        keep so many users with their whole histories: drawn from those that are left, always the same ones. The name
        and a note of the dataset say so. ``DataError`` where there are fewer.

    Without times the clock becomes ``order``; with ``clock="order"`` the column ``time`` is rewritten as the place in
    the history. Unknown times come before known ones.
    """
    if min_count < 0:
        raise DataError(f"min_count is {min_count}; the k of a k-core is 0 (no filter) or more")
    about = about or About()
    events = _events(name, interactions, positive)
    times, known = _times(events, clock)
    if times is None:
        clock = "order"
    coded_users, coded_items = encode(events["user"], "user"), encode(events["item"], "item")
    extra = events.drop("user", "item", "time", strict=False)
    del events
    kept = _kept(coded_users, coded_items, times, known, duplicates, min_count)
    if some_users is not None:
        kept, left = drawn_mask(coded_users, kept, some_users, f"dataset '{name}'")
        name, about = f"{name}-{some_users}-users", _of_some(about, some_users, left, min_count)
    user_codes, item_codes = coded_users.codes, coded_items.codes
    if kept is not None:
        user_codes, item_codes, extra = user_codes[kept], item_codes[kept], extra.filter(kept)
        times, known = None if times is None else times[kept], None if known is None else known[kept]
    unseen = min_count <= 1 and some_users is None if keep_unseen is None else keep_unseen
    of_users = unseen and some_users is None  # their number was asked for
    user_rows, user_table = number(coded_users, user_codes, users, "user", keep_unseen=of_users)
    item_rows, item_table = number(coded_items, item_codes, items, "item", keep_unseen=unseen)
    del coded_users, coded_items, user_codes, item_codes, kept
    along = (item_rows,) if times is None or clock == "order" else (item_rows, times)
    order = history_order(user_rows, times, user_table.height, known=known, along=along)
    del user_rows, item_rows, times, along
    said = replace(
        about,
        positive=positive or about.positive,
        duplicates=DUPLICATES_SAID[duplicates] if duplicates != "keep" else about.duplicates,
        notes=(*about.notes, f"k-core of {min_count}") if min_count > 1 else about.notes,
    )
    table = _ordered(order, known, extra)
    return Dataset(name, table, item_table, user_table, clock, said)


def _of_some(about: About, n: int, left: int, min_count: int) -> About:
    core = "; the k-core holds of all of them together" if min_count > 1 else ""
    return replace(about, notes=(*about.notes, f"{n:,} of {left:,} users, drawn by lot over their ids{core}"))


def _events(name: str, interactions: pl.DataFrame | pl.LazyFrame, positive: str | None) -> pl.DataFrame:
    """The columns as they are meant, of the events that count."""
    scan = interactions.lazy()
    schema = scan.collect_schema()
    for column in ("user", "item"):
        if column not in schema:
            raise DataError(f"dataset '{name}': the interactions lack the column '{column}'{nearest(column, schema)}")
    if positive is not None:
        scan = scan.filter(positive_filter(positive, schema))
    casts: dict[Any, Any] = {column: dtype for column, dtype in OPTIONAL.items() if schema.get(column, dtype) != dtype}
    try:
        return scan.cast(casts).collect(engine="streaming") if casts else scan.collect(engine="streaming")
    except pl.exceptions.InvalidOperationError as failure:
        raise DataError(f"dataset '{name}': {str(failure).splitlines()[0]}") from None


def _times(events: pl.DataFrame, clock: Clock) -> tuple[IntArray | None, npt.NDArray[np.bool_] | None]:
    """``[E]`` int64 milliseconds and where they are known; (None, None) when no time is."""
    if "time" not in events.columns:
        return None, None
    column = events["time"]
    if column.dtype.is_temporal():
        column = column.cast(pl.Datetime("ms")).cast(pl.Int64)
    if len(column) and column.null_count() == len(column):
        return None, None
    if not column.dtype.is_integer():
        raise DataError(f"column 'time' holds {column.dtype}, expected whole milliseconds or dates")
    column = column.cast(pl.Int64)
    if not column.null_count():
        return column.to_numpy(), None
    return column.fill_null(0).to_numpy(), column.is_not_null().to_numpy()


def _kept(
    users: Coded,
    items: Coded,
    times: IntArray | None,
    known: npt.NDArray[np.bool_] | None,
    duplicates: Duplicates,
    min_count: int,
) -> npt.NDArray[np.bool_] | None:
    """``[E]`` the events that survive duplicates and k-core, in file order. None = all of them."""
    if duplicates not in DUPLICATES_SAID:
        raise DataError(f"duplicates is '{duplicates}'{nearest(duplicates, DUPLICATES_SAID)}")
    if duplicates == "keep":
        return core_mask(users, items, min_count)
    order = history_order(users.codes, times, users.n_codes, known=known).positions
    if duplicates == "last":
        order = order[::-1]
    pairs = users.codes[order].astype(np.int64) * items.n_codes + items.codes[order]
    _, first = np.unique(pairs, return_index=True)
    kept = np.zeros(len(order), dtype=bool)
    kept[order[first]] = True
    core = core_mask(replace(users, codes=users.codes[kept]), replace(items, codes=items.codes[kept]), min_count)
    if core is not None:
        kept[kept] = core
    return kept


def _ordered(order: HistoryOrder, known: npt.NDArray[np.bool_] | None, extra: pl.DataFrame) -> pl.DataFrame:
    """The interactions table: rows, time, then whatever else the events say. Without times their place is the time."""
    item_rows, *times = order.along
    if times:
        time = pl.Series(times[0])
        if known is not None and not known.all():
            time = time.set(~pl.Series(known[order.positions]), None)
    else:
        starts = np.repeat(order.offsets[:-1], np.diff(order.offsets))
        time = pl.Series(np.arange(len(item_rows), dtype=np.int64) - starts)
    table = pl.DataFrame({"user_row": order.user_rows, "item_row": item_rows, "time": time})
    return table.hstack(extra[order.positions]) if extra.width else table
