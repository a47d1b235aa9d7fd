"""Which column of an unknown table is what: guessed from names and values, shown before it is used, overridden."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from palate.core.errors import DataError, nearest
from palate.data.times import TimeUnit, parse_iso, unit_of

ROLES: Mapping[str, tuple[str, ...]] = {
    "user": (
        "user", "userid", "uid", "customer", "customerid", "reviewer", "reviewerid", "visitor", "visitorid", "member",
        "memberid", "client", "clientid", "buyer", "buyerid", "account", "accountid", "username", "person", "reader",
        "profile", "session", "sessionid",
    ),
    "item": (
        "item", "itemid", "iid", "product", "productid", "parentasin", "asin", "sku", "article", "articleid", "movie",
        "movieid", "book", "bookid", "isbn", "business", "businessid", "track", "trackid", "song", "songid", "artist",
        "artistid", "video", "videoid", "game", "gameid", "appid", "recipe", "recipeid", "news", "newsid", "content",
        "contentid", "listing", "listingid", "stockcode",
    ),
    "time": (
        "time", "timestamp", "ts", "unixreviewtime", "datetime", "date", "day", "eventtime", "createdat", "created",
        "tdat", "unixtime", "reviewtime", "when", "invoicedate", "orderdate", "purchasedate", "posted",
    ),
    "rating": ("rating", "stars", "overall", "score", "grade", "ratingvalue"),
    "review": ("review", "reviewtext", "reviewbody", "comment", "comments", "opinion"),
    "kind": ("kind", "event", "eventtype", "action", "behavior", "behaviour", "interaction", "interactiontype"),
    "weight": ("weight", "quantity", "qty", "count", "playcount", "hours", "playtime", "watchratio"),
    "title": ("title", "itemtitle", "producttitle", "movietitle", "booktitle", "productname", "itemname", "name"),
    "text": ("description", "itemtext", "plot", "abstract", "itemdescription"),
    "category": ("category", "categories", "genre", "genres", "tags", "itemcategory", "categorycode"),
    "image": ("image", "imageurl", "imurl", "picture", "cover", "poster"),
}  # fmt: skip
"""Names that columns go by, letters and digits only, the surest first."""

OF_EVENTS = ("user", "item", "time", "rating", "review", "kind", "weight")
OF_ITEMS = ("title", "text", "category", "image")

UNIT_SAID: Mapping[TimeUnit, str] = {
    "iso": "dates in ISO form",
    "days": "days in ISO form",
    "seconds": "seconds since 1970",
    "milliseconds": "milliseconds since 1970",
    "microseconds": "microseconds since 1970",
    "order": "places in an order, no moments",
}


@dataclass(frozen=True)
class Schema:
    """What each column means. columns: role → column; unit: how ``time`` is written; unused: columns without a role."""

    columns: Mapping[str, str]
    unit: TimeUnit | None
    examples: Mapping[str, str]
    unused: tuple[str, ...]
    chosen: frozenset[str] = frozenset()

    def render(self, source: str) -> str:
        """The guess as lines for a person, with the way to correct it."""
        width = max(len(column) for column in self.columns.values())
        lines = [f"{source} is read as:"]
        for role, column in self.columns.items():
            said = f" ({UNIT_SAID[self.unit]})" if role == "time" and self.unit else ""
            how = "chosen" if role in self.chosen else "guessed"
            lines.append(f"  {role:<9}= {column:<{width}}  {how}, e.g. {self.examples.get(column, '')}{said}")
        if "time" not in self.columns:
            lines.append("  no column of times: the order of the rows is the order of events")
        if self.unused:
            lines.append(f"  not used: {', '.join(self.unused)}")
        lines.append("  Wrong? Name it yourself: --column user=THAT_COLUMN")
        return "\n".join(lines)


def guess(sample: pl.DataFrame, overrides: Mapping[str, str] | None = None, source: str = "this table") -> Schema:
    """Which column is what, from names and the first rows. ``overrides``: role → column, or → "" for none.

    Raises ``DataError`` when there is no user or no item, or an override names what is not there.
    """
    overrides = overrides or {}
    _check(overrides, sample.columns, source)
    _refuse_headless(sample.columns, source)
    columns: dict[str, str] = {role: column for role, column in overrides.items() if column}
    for role in ROLES:
        if role in overrides:
            continue
        free = [column for column in sample.columns if column not in columns.values()]
        found = _named(role, free, sample)
        if found is not None:
            columns[role] = found
    for role in ("user", "item"):
        if role not in columns:
            raise DataError(
                f"{source}: cannot tell which column is the {role} (columns: {', '.join(sample.columns)}); "
                f"say it with --column {role}=COLUMN"
            )
    columns = {role: columns[role] for role in ROLES if role in columns}
    unit = _unit(sample[columns["time"]]) if "time" in columns else None
    examples = {column: _example(sample[column]) for column in columns.values()}
    unused = tuple(column for column in sample.columns if column not in columns.values())
    return Schema(columns, unit, examples, unused, frozenset(overrides))


def _check(overrides: Mapping[str, str], columns: list[str], source: str) -> None:
    for role, column in overrides.items():
        if role not in ROLES:
            raise DataError(f"--column {role}={column}: no such meaning{nearest(role, ROLES)}")
        if column and column not in columns:
            raise DataError(f"{source} has no column '{column}'{nearest(column, columns)}")


def _refuse_headless(columns: list[str], source: str) -> None:
    if all(re.fullmatch(r"\s*-?\d+(\.\d+)?\s*", column) for column in columns):
        raise DataError(f"{source}, line 1: found {', '.join(columns[:4])!r}, expected the names of the columns")


def _named(role: str, columns: list[str], sample: pl.DataFrame) -> str | None:
    """The free column that goes by a name of ``role``: exactly, else as one of its words."""
    plain = {re.sub(r"[^a-z0-9]", "", column.lower()): column for column in reversed(columns)}
    for name in ROLES[role]:
        if name in plain and _fits(role, sample[plain[name]]):
            return plain[name]
    if role not in ("user", "item", "time"):
        return None
    for column in columns:
        words = re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", column).lower())
        if set(words) & set(ROLES[role][:12]) and "name" not in words and _fits(role, sample[column]):
            return column
    return None


def _fits(role: str, column: pl.Series) -> bool:
    """Whether the values can be what the name says."""
    if role in ("rating", "weight"):
        return column.dtype.is_numeric() or _numbers(column) is not None
    if role == "time":
        return _unit(column) is not None
    if role in ("user", "item"):
        return column.dtype.is_integer() or column.dtype in (pl.String, pl.Categorical, pl.Enum)
    return True


def _unit(column: pl.Series) -> TimeUnit | None:
    """How the moments of a column are written; None when they are none."""
    column = column.drop_nulls()
    if column.dtype.is_temporal():
        return "days" if column.dtype == pl.Date else "iso"
    if column.dtype == pl.String:
        column = column.filter(column.str.strip_chars() != "")
        numbers = _numbers(column)
        if numbers is None:
            # A few strays are bad rows, which the reading will name; most values decide.
            readable = len(column) - parse_iso(column).null_count()
            if readable * 2 < len(column) or not readable:
                return None
            return "days" if bool(column.str.contains(r"^\s*\d{4}-\d{2}-\d{2}\s*$").all()) else "iso"
        column = numbers
    return unit_of(column) if column.dtype.is_numeric() and len(column) else None


def _numbers(column: pl.Series) -> pl.Series | None:
    """Text as numbers when most of it is; None otherwise."""
    if column.dtype != pl.String or not len(column):
        return None
    numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
    return numbers if numbers.null_count() * 2 < len(column) else None


def _example(column: pl.Series) -> str:
    known = column.drop_nulls()
    first = known[0] if len(known) else "nothing"
    text = ", ".join(str(entry) for entry in first) if isinstance(first, pl.Series) else str(first)
    return text if len(text) <= 40 else text[:37] + "…"
