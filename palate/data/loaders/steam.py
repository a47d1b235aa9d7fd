"""Steam, as UC San Diego publishes it: lines are Python literals (``{u'id': u'7'}``), not JSON.

W. Kang and J. McAuley, *Self-Attentive Sequential Recommendation*, ICDM 2018 (``steam_reviews.json.gz``, columns from
RUCAIBox/RecSysDatasets, conversion_tools/src/extended_dataset.py); A. Pathak et al., SIGIR 2017
(``australian_user_reviews.json.gz``: one line a user, with ``reviews``). ``steam_games.json.gz`` describes the games.
Both files of reviews are untested on the originals; ``steam_games.json.gz`` is tested.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from palate.core.dataset import About
from palate.core.errors import DataError
from palate.data.json_lines import Key, json_or_literal, literal, number, read_records, records, text
from palate.data.reading import UNTESTED, BadRows, Reading, Tables, about_with, find_file, find_optional

_TEXTS = pl.List(pl.String)
_POSTED = re.compile(r"Posted (\w+ \d{1,2}, \d{4})")


def steam(folder: Path, reading: Reading) -> Tables:
    """Reviews with their day; a review that does not say its year has no time."""
    bad = BadRows(reading.skip_bad)
    path = find_file(folder, "steam_reviews.json", "australian_user_reviews.json")
    events = _australian(path, bad) if path.name.startswith("australian") else _reviews(path, bad)
    about = About(
        title="Steam reviews",
        source="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
        licence="research use",
    )
    return Tables(events, games(folder, bad), clock="day", about=about_with(about, bad, UNTESTED))


def _reviews(path: Path, bad: BadRows) -> pl.DataFrame:
    keys = [
        text("username", "user", needed=True),
        text("product_id", "item", needed=True),
        Key("date", "time", _day, pl.Int64, "a date such as 2017-12-24"),
        number("hours", "weight"),
        text("text", "review"),
    ]
    return read_records(path, keys, bad, literal)


def _australian(path: Path, bad: BadRows) -> pl.DataFrame:
    """One row a review; ``rating`` is 1 for a recommendation and 0 for the opposite."""
    rows: list[tuple[str, str, int | None, float | None, str | None]] = []
    for line, record in records(path, bad, literal):
        reviews = record.get("reviews")
        if "user_id" not in record or not isinstance(reviews, list):
            bad.add(DataError.at(path, "a record with user_id and a list of reviews", line=line, value=record))
            continue
        for review in reviews:
            posted = _POSTED.search(str(review.get("posted", "")))
            time = _milliseconds(datetime.strptime(posted.group(1), "%B %d, %Y")) if posted else None
            liked = review.get("recommend")
            rating = None if liked is None else float(bool(liked))
            rows.append((str(record["user_id"]), str(review["item_id"]), time, rating, review.get("review")))
    schema = {"user": pl.String, "item": pl.String, "time": pl.Int64, "rating": pl.Float64, "review": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def games(folder: Path, bad: BadRows) -> pl.DataFrame | None:
    """What is known about each game; the first line of an id counts. None where the file is not there."""
    path = find_optional(folder, "steam_games.json")
    if path is None:
        return None
    keys = [
        text("id", "item"),
        text("app_name", "title"),
        text("title", "other_title"),
        text("developer", "developer"),
        Key("genres", "category", _texts, _TEXTS, "a list of text"),
        Key("tags", "tags", _texts, _TEXTS, "a list of text"),
        Key("specs", "specs", _texts, _TEXTS, "a list of text"),
        Key("release_date", "released", str, pl.String, "text"),
        Key("price", "price", _price, pl.Float64, "a price"),
    ]
    table = read_records(path, keys, bad, json_or_literal).filter(pl.col("item").is_not_null())
    table = table.unique("item", keep="first", maintain_order=True)
    table = table.with_columns(title=pl.coalesce("title", "other_title")).drop("other_title")
    parts = [pl.col("title"), pl.col("developer"), pl.col("category").list.join(", "), pl.col("tags").list.join(", ")]
    filled = [pl.when(part != "").then(part) for part in parts]
    return table.with_columns(text=pl.concat_str(pl.concat_list(filled).list.drop_nulls().list.join(". "), pl.lit(".")))


def _milliseconds(moment: datetime) -> int:
    return int(moment.replace(tzinfo=UTC).timestamp()) * 1000


def _day(value: Any) -> int:
    return _milliseconds(datetime.strptime(value, "%Y-%m-%d"))


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError
    return [str(entry) for entry in value]


def _price(value: Any) -> float | None:
    """Dollars; words such as "Free To Play" mean none, other words are unknown."""
    if isinstance(value, (int, float)):
        return float(value)
    return 0.0 if "free" in str(value).lower() else None
