"""A grown log numbered so that it begins with the rows of an earlier one: what learnt tables need to be continued."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from palate.core.dataset import Dataset
from palate.core.errors import LeakError
from palate.core.split import Split


def beginning_with(dataset: Dataset, items: pl.DataFrame, users: pl.DataFrame) -> Dataset:
    """The same events, where item and user rows begin with the ids of ``items`` and ``users``, in their order.

    Ids unknown there follow in their present order. An earlier id that the present tables lack keeps its row, without
    events and with nothing known about it.
    """
    item_table, item_row = _renumber(dataset.items, items["item"], "item")
    user_table, user_row = _renumber(dataset.users, users["user"], "user")
    events = dataset.interactions.with_columns(
        pl.Series("user_row", user_row[dataset.user_rows], dtype=pl.Int32),
        pl.Series("item_row", item_row[dataset.item_rows], dtype=pl.Int32),
    ).sort("user_row", maintain_order=True)
    return replace(dataset, interactions=events, items=item_table, users=user_table)


def taught_events(train: Dataset) -> pl.DataFrame:
    """What a fit learned from, in outside ids: ``user``, ``item``, ``time``. A later run that continues it is checked
    against these."""
    return pl.DataFrame({
        "user": train.users["user"][train.user_rows],
        "item": train.items["item"][train.item_rows],
        "time": train.interactions["time"] if "time" in train.interactions.columns else None,
    })  # fmt: skip


def refuse_taught(split: Split, taught: pl.DataFrame, who: str) -> None:
    """Raise ``LeakError`` when a validation or test event of ``split`` is among the events ``who`` learned from."""
    rows = np.concatenate([split.valid.events, split.test.events])
    asked = taught_events(split.dataset.keeping(np.sort(rows[rows >= 0])))
    seen = asked.join(taught, on=["user", "item", "time"], how="semi", nulls_equal=True).height
    if seen:
        raise LeakError(
            f"{who} already learned {seen:,} of the {asked.height:,} events that this split asks; "
            "continue it only on data where those come later, or fit anew without --from"
        )


def _renumber(table: pl.DataFrame, first: pl.Series, key: str) -> tuple[pl.DataFrame, np.ndarray]:
    """The table that begins with ``first``, and the new row of each old one."""
    later = table[key].filter(~table[key].is_in(first.implode()))
    ids = pl.concat([first, later]).alias(key)
    renumbered = ids.to_frame().join(table, on=key, how="left", maintain_order="left")
    rows = table.select(key).join(ids.to_frame().with_row_index("row"), on=key, how="left", maintain_order="left")[
        "row"
    ]
    return renumbered, rows.to_numpy().astype(np.int32)
