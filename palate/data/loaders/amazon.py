"""Amazon Reviews of the McAuley lab at UC San Diego: the editions of 2014, 2018 and 2023.

2014  J. McAuley et al., *Image-based Recommendations on Styles and Substitutes*, SIGIR 2015.
      ``reviews_<Category>_5.json.gz`` (reviewerID, asin, overall, unixReviewTime, reviewText, summary) and
      ``meta_<Category>.json.gz``, whose lines are Python literals and not JSON. Untested on the original.
2018  J. Ni, J. Li, J. McAuley, *Justifying Recommendations using Distantly-Labeled Reviews and Fine-Grained Aspects*,
      EMNLP 2019. ``<Category>_5.json.gz`` and ``meta_<Category>.json.gz``; the columns were read in the files of Gift
      Cards and Appliances: ``vote`` is text, description, feature and category are lists, pairs repeat.
2023  Y. Hou et al., *Bridging Language and Items for Retrieval and Recommendation*, arXiv:2403.03952.
      ``<Category>.jsonl.gz`` and ``meta_<Category>.jsonl.gz``; an item is a ``parent_asin``, a time is in milliseconds;
      columns from huggingface.co/datasets/McAuley-Lab/Amazon-Reviews-2023. Untested on the original.

The times of 2014 and 2018 are days (midnight UTC), so their clock is ``day``.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import polars as pl

from palate.core.dataset import About
from palate.core.errors import DataError
from palate.data.json_lines import Key, json_or_literal, number, read_records, text, whole
from palate.data.reading import UNTESTED, BadRows, Reading, Tables, about_with

_TAG = re.compile(r"<[^>]{0,2000}>")
_TEXTS = pl.List(pl.String)
_LICENCE = "research use; the reviews belong to their authors and to Amazon"


def reviews_2014(folder: Path, reading: Reading) -> Tables:
    """The edition of 2014. Untested on the original."""
    reviews = _only(folder, "reviews_*.json")
    bad = BadRows(reading.skip_bad)
    events = read_records(
        reviews, _review_keys("reviewerID", "asin", "overall", "unixReviewTime"), bad, json_or_literal
    )
    items = _items(folder, "asin", bad)
    about = About(
        title=f"Amazon Reviews 2014, {_category(reviews).removeprefix('reviews_')}",
        source="https://jmcauley.ucsd.edu/data/amazon/",
        licence=_LICENCE,
    )
    return Tables(_from_seconds(events), items, clock="day", about=about_with(about, bad, UNTESTED))


def reviews_2018(folder: Path, reading: Reading) -> Tables:
    """The edition of 2018. Many events repeat: choose with ``duplicates`` whether they stay."""
    reviews = _only(folder, "*.json", but="meta_")
    bad = BadRows(reading.skip_bad)
    keys = _review_keys("reviewerID", "asin", "overall", "unixReviewTime")
    events = read_records(reviews, [*keys, whole("vote", "helpful_votes")], bad)
    about = About(
        title=f"Amazon Reviews 2018, {_category(reviews)}",
        source="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
        licence=_LICENCE,
    )
    items = _items(folder, "asin", bad)
    return Tables(_from_seconds(events), items, clock="day", about=about_with(about, bad))


def reviews_2023(folder: Path, reading: Reading) -> Tables:
    """The edition of 2023. Untested on the original."""
    reviews = _only(folder, "*.jsonl", but="meta_")
    bad = BadRows(reading.skip_bad)
    keys = [
        text("user_id", "user", needed=True),
        text("parent_asin", "item", needed=True),
        whole("timestamp", "time", needed=True),
        number("rating", "rating", needed=True),
        text("text", "review"),
        text("title", "summary"),
        whole("helpful_vote", "helpful_votes"),
    ]
    events = read_records(reviews, keys, bad)
    about = About(
        title=f"Amazon Reviews 2023, {_category(reviews)}",
        source="https://amazon-reviews-2023.github.io/",
        licence=_LICENCE,
    )
    return Tables(events, _items(folder, "parent_asin", bad), about=about_with(about, bad, UNTESTED))


def _review_keys(user: str, item: str, rating: str, time: str) -> list[Key]:
    return [
        text(user, "user", needed=True),
        text(item, "item", needed=True),
        whole(time, "time", needed=True),
        number(rating, "rating", needed=True),
        text("reviewText", "review"),
        text("summary", "summary"),
    ]


def _from_seconds(events: pl.DataFrame) -> pl.DataFrame:
    return events.with_columns(pl.col("time") * 1000)


def _only(folder: Path, pattern: str, but: str = "nothing is called this") -> Path:
    """The one file of that pattern, plain or gzipped, whose name does not begin with ``but``."""
    found = sorted(
        path for ending in ("", ".gz") for path in folder.glob(pattern + ending) if not path.name.startswith(but)
    )
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder}: expected one file {pattern} (plain or .gz), found {names}")
    return found[0]


def _category(path: Path) -> str:
    return path.name.split(".")[0].removesuffix("_5").replace("_", " ")


def _items(folder: Path, item: str, bad: BadRows) -> pl.DataFrame | None:
    """What the metadata file says, the first line of each item; None where there is no such file."""
    if not any(folder.glob("meta_*.json*")):
        return None
    path = _only(folder, "meta_*.jsonl" if item == "parent_asin" else "meta_*.json")
    keys = [
        text(item, "item", needed=True),
        Key("title", "title", _title, pl.String, "text"),
        Key("categories", "categories", _texts, _TEXTS, "a list of text"),
        Key("category", "category", _texts, _TEXTS, "a list of text"),
        Key("description", "description", _joined, pl.String, "text or a list of text"),
        Key("brand", "brand", _plain, pl.String, "text"),
        Key("store", "store", _plain, pl.String, "text"),
        Key("price", "price", _price, pl.Float64, "a price"),
        Key("imUrl", "imUrl", _plain, pl.String, "a link"),
        Key("image", "image", _first_link, pl.String, "links"),
        Key("images", "images", _first_link, pl.String, "links"),
    ]
    found = read_records(path, keys, bad, json_or_literal).unique("item", keep="first", maintain_order=True)
    # An edition has one of each pair of names.
    found = found.with_columns(
        category=pl.coalesce("category", "categories"),
        brand=pl.coalesce("brand", "store"),
        image=pl.coalesce("image", "images", "imUrl"),
    ).drop("categories", "store", "imUrl", "images")
    return found.with_columns(text=_item_text()).select(
        "item", "title", "text", "category", "image", "brand", "price", "description"
    )


def _item_text() -> pl.Expr:
    """Title, brand, categories and description as sentences; what is missing is left out."""
    parts = [pl.col("title"), pl.col("brand"), pl.col("category").list.join(", "), pl.col("description")]
    filled = [pl.when(part != "").then(part.str.strip_chars_end(". ")) for part in parts]
    joined = pl.concat_list(filled).list.drop_nulls().list.join(". ")
    return pl.when(joined != "").then(joined + ".").otherwise(pl.lit(""))


def _plain(value: Any) -> str | None:
    """Text without mark-up and with single spaces; empty = unknown."""
    if not isinstance(value, str):
        raise ValueError
    return " ".join(_TAG.sub(" ", html.unescape(value)).split()) or None


def _title(value: Any) -> str | None:
    # Some titles of 2018 are a piece of the page's script instead of a name.
    return None if isinstance(value, str) and "getTime" in value else _plain(value)


def _texts(value: Any) -> list[str]:
    """A list of texts, or a list of such lists (2014), without repeats."""
    if not isinstance(value, list):
        raise ValueError
    flat = [inner for entry in value for inner in (entry if isinstance(entry, list) else [entry])]
    return list(dict.fromkeys(found for entry in flat if (found := _plain(entry))))


def _joined(value: Any) -> str | None:
    if isinstance(value, str):
        return _plain(value)
    return " ".join(_texts(value)) or None


def _price(value: Any) -> float | None:
    """Dollars; a range or words are unknown."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    match = re.fullmatch(r"\s*\$?\s*([\d,]*\.?\d+)\s*", value) if isinstance(value, str) else None
    return float(match.group(1).replace(",", "")) if match else None


def _first_link(value: Any) -> str | None:
    """The first picture: a list of links (2018), or a list of records of links (2023)."""
    if isinstance(value, str):
        return value or None
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, dict):
        first = next((first[size] for size in ("hi_res", "large", "thumb") if first.get(size)), None)
    return first if isinstance(first, str) else None
