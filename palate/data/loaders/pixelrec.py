"""PixelRec (Y. Cheng et al., SDM 2024): comments on short videos, with cover pictures. Untested on the original.

``interaction.csv`` or ``Pixel200K.csv`` and the like (item_id, user_id, timestamp in seconds) and ``item_info.csv``
(item_id, counters, title_en, title, description, tag; dataset/readme.md of westlake-repl/PixelRec). Covers lie in
``covers/<item_id>.jpg`` where they were unpacked.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from palate.core.dataset import About
from palate.core.errors import DataError
from palate.data.delimited import CSV, Field, header_of, read_delimited
from palate.data.reading import UNTESTED, BadRows, Reading, Tables, about_with, find_optional

_EVENT = {"item_id", "user_id", "timestamp"}


def pixelrec(folder: Path, reading: Reading) -> Tables:
    """Comments in time; items with an English title where there is one."""
    bad = BadRows(reading.skip_bad)
    paths = sorted([*folder.glob("*.csv"), *folder.glob("*.csv.gz")])
    events_file = next((path for path in paths if set(header_of(path, CSV)) >= _EVENT), None)
    if events_file is None:
        raise DataError(f"{folder} has no CSV file with the columns item_id, user_id, timestamp")
    events = read_delimited(
        events_file,
        [
            Field("user_id", "user", needed=True),
            Field("item_id", "item", needed=True),
            Field("timestamp", "time", pl.Int64, needed=True),
        ],
        bad=bad,
    )
    about = About(
        title=f"PixelRec ({events_file.name.split('.')[0]})",
        source="https://github.com/westlake-repl/PixelRec",
        licence="research use; no redistribution of changed copies",
    )
    events = events.with_columns(pl.col("time") * 1000)
    return Tables(events, _items(folder, bad), about=about_with(about, bad, UNTESTED))


def _items(folder: Path, bad: BadRows) -> pl.DataFrame | None:
    path = find_optional(folder, "item_info.csv")
    if path is None:
        return None
    here = header_of(path, CSV)
    wanted = [("item_id", "item"), ("title_en", "title_en"), ("title", "title"), ("description", "description")]
    fields = [Field(name, as_, needed=name == "item_id") for name, as_ in [*wanted, ("tag", "tag")] if name in here]
    table = read_delimited(path, fields, bad=bad).unique("item", keep="first", maintain_order=True)
    names = [name for name in ("title_en", "title") if name in table.columns]
    blank_is_none = [pl.when(pl.col(name) != "").then(pl.col(name)) for name in names]
    table = table.with_columns(title=pl.coalesce(blank_is_none)) if names else table
    tag = pl.col("tag") if "tag" in table.columns else pl.lit("")
    covers = folder / "covers"
    if covers.is_dir():
        table = table.with_columns(image=pl.concat_str(pl.lit(f"{covers}/"), pl.col("item"), pl.lit(".jpg")))
    parts = [pl.col(name) for name in ("title", "tag", "description") if name in table.columns]
    filled = [pl.when(part != "").then(part) for part in parts]
    return table.with_columns(
        category=pl.when(tag != "").then(pl.concat_list(tag)).otherwise(pl.lit([], dtype=pl.List(pl.String))),
        text=pl.concat_list(filled).list.drop_nulls().list.join(". "),
    )
