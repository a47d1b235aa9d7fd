"""XRec (Q. Ma, X. Ren, C. Huang, EMNLP Findings 2024, arXiv 2406.02377): who met what, of three public sets.

``data/`` of HKUDS/XRec has a folder each for Amazon Books (2018), Yelp and Google Local: ``total_trn.csv``,
``total_val.csv`` and ``total_tst.csv`` with ``user,item`` and, for Amazon alone, ``Time`` (a day, as ``06 12, 2016``).
The column ``part`` of an event says which file it is from, so ``positive="part=train"`` reads the published train part.
Pickles of pairs with an explanation lie beside them, here as JSON lines; those of ``tst.jsonl`` give titles.

What is missing or odd, and what follows:
- ``total_trn.csv`` of Amazon was not at hand: without it that set is its valid and test pairs, and a note says so.
- Yelp and Google have neither times nor an order: files are shuffled. Events of a user stand as in train, valid, test,
  so a split by the last event asks about the published test pairs first, and no figure is one about time.
- Pairs of ``tst.jsonl`` are another share than ``total_tst.csv``: four in five stand in ``total_trn.csv``.
- Summaries and explanations are no part of the dataset. A language model wrote them, from reviews that nobody lists;
  ``annotator=imported`` takes the summaries, with that said.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from palate.core.dataset import About
from palate.data.delimited import Field, Layout, header_of, read_delimited
from palate.data.json_lines import read_records, text
from palate.data.reading import BadRows, Reading, Tables, about_with, find_file, find_optional

PARTS = {"train": "total_trn.csv", "valid": "total_val.csv", "test": "total_tst.csv"}
NO_TRAIN = "total_trn.csv is missing: these are the published valid and test pairs alone"
NO_ORDER = "neither times nor an order are known: a user's events stand as in the files, train, valid, test"
_COLUMNS = Layout(",")


def xrec(folder: Path, reading: Reading) -> Tables:
    """Events of all parts that are there, with ``part``; titles of the items that have an explained pair."""
    bad = BadRows(reading.skip_bad)
    found = {part: path for part, name in PARTS.items() if (path := find_optional(folder, name)) is not None}
    dated = all("Time" in header_of(path, _COLUMNS) for path in found.values())
    events = pl.concat([_events(path, dated, bad).with_columns(part=pl.lit(part)) for part, path in found.items()])
    titles = read_records(
        find_file(folder, "tst.jsonl"), [text("iid", "item", needed=True), text("title", "title")], bad
    )
    titles = titles.unique("item", keep="first", maintain_order=True)
    about = About(
        title="Interactions of XRec",
        source="https://github.com/HKUDS/XRec",
        licence="Apache-2.0 (the repository); the data under the terms of their first publisher",
        ties="time, then file order" if dated else "the order of the files",
    )
    notes = [*([] if "train" in found else [NO_TRAIN]), *([] if dated else [NO_ORDER])]
    return Tables(events, titles, clock="day" if dated else "order", about=about_with(about, bad, *notes))


def _events(path: Path, dated: bool, bad: BadRows) -> pl.DataFrame:
    fields = [Field("user", "user", pl.Int64, needed=True), Field("item", "item", pl.Int64, needed=True)]
    if dated:
        day = Field("Time", "time", pl.Int64, needed=True, parse=_day, expected="a day such as 06 12, 2016")
        fields.append(day)
    return read_delimited(path, fields, _COLUMNS, bad)


def _day(column: pl.Series) -> pl.Series:
    """Its first millisecond, in UTC."""
    day = column.str.strip_chars().str.to_date("%m %d, %Y", strict=False)
    return day.cast(pl.Datetime("ms")).cast(pl.Int64)
