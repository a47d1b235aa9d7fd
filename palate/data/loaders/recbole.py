"""RecBole's atomic files: ``.inter``, ``.item`` and ``.user``, tabs, the type of each column in the first line.

``name:token`` is one value, ``name:token_seq`` words between spaces, ``name:float`` a number (recbole.io,
docs/user_guide/data/atomic_files). A ``.inter`` file whose rows hold a whole history (``item_id_list``) and the item
that follows gives that history in order; of train, valid and test the last one holds everything.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from palate.core.dataset import About
from palate.core.errors import DataError
from palate.data.delimited import Field, Layout, header_of, read_delimited
from palate.data.reading import BadRows, Reading, Tables, about_with
from palate.data.times import in_milliseconds

_TABS = Layout("\t", quoted=False)
_RENAMED = {"user_id": "user", "item_id": "item", "timestamp": "time"}
_TITLES = ("title", "movie_title", "name", "app_name")
_CATEGORIES = ("category", "categories", "genre", "genres", "class", "tags")


def recbole(folder: Path, reading: Reading) -> Tables:
    """Events and, where they are there, tables of items and users."""
    bad = BadRows(reading.skip_bad)
    path = _events_file(folder)
    events = _atomic(path, bad)
    about = About(title=f"{path.name.split('.')[0]} (atomic files of RecBole)", source="https://recbole.io")
    items, users = _described(folder, "item", bad), _described(folder, "user", bad)
    if "item_id_list" in events.columns:
        events = events.select("user", item=pl.concat_list("item_id_list", "item")).explode("item")
        return Tables(events, items, users, clock="order", about=about_with(about, bad))
    if "time" in events.columns:
        events = events.with_columns(in_milliseconds(events["time"]).alias("time"))
    return Tables(events, items, users, about=about_with(about, bad))


def _events_file(folder: Path) -> Path:
    found = sorted([*folder.glob("*.inter"), *folder.glob("*.inter.gz")])
    whole = [path for path in found if not any(part in path.name for part in (".train.", ".valid.", ".test."))]
    chosen = whole or [path for path in found if ".test." in path.name]
    if len(chosen) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder}: expected one .inter file (plain or .gz), found {names}")
    return chosen[0]


def _atomic(path: Path, bad: BadRows) -> pl.DataFrame:
    """All columns under their names without types; the three that every dataset has get our names."""
    fields, lists = [], []
    for header in header_of(path, _TABS):
        name, colon, kind = header.rpartition(":")
        if not colon or kind not in ("token", "token_seq", "float", "float_seq"):
            raise DataError.at(path, "name:token, name:token_seq, name:float or name:float_seq", line=1, value=header)
        as_ = _RENAMED.get(name, name)
        fields.append(Field(header, as_, pl.Float64 if kind == "float" else pl.String, as_ in ("user", "item")))
        # A title is one text, although its type says words.
        if kind.endswith("_seq") and name not in _TITLES:
            lists.append(as_)
    table = read_delimited(path, fields, _TABS, bad)
    for name in lists:
        words = pl.col(name).str.split(" ").list.filter(pl.element() != "")
        table = table.with_columns(words.alias(name))
    return table


def _described(folder: Path, kind: str, bad: BadRows) -> pl.DataFrame | None:
    found = sorted([*folder.glob(f"*.{kind}"), *folder.glob(f"*.{kind}.gz")])
    if not found:
        return None
    table = _atomic(found[0], bad).unique(kind, keep="first", maintain_order=True)
    if kind == "user":
        return table
    title = next((name for name in _TITLES if name in table.columns), None)
    category = next((name for name in _CATEGORIES if name in table.columns), None)
    parts = []
    if title is not None:
        table = table.rename({title: "title"})
        parts.append(pl.col("title"))
    if category is not None:
        table = table.rename({category: "category"})
        if table["category"].dtype == pl.String:
            table = table.with_columns(pl.concat_list("category"))
        parts.append(pl.col("category").list.join(", "))
    if not parts:
        return table
    filled = [pl.when(part != "").then(part) for part in parts]
    return table.with_columns(text=pl.concat_list(filled).list.drop_nulls().list.join(". "))
