"""The Yelp Open Dataset: one JSON record a line. Untested on the original; Yelp's terms allow academic use.

``yelp_academic_dataset_review.json`` (user_id, business_id, stars, date, text) and
``yelp_academic_dataset_business.json`` (business_id, name, city, state, categories as text or list); columns from the
descriptions at yelp.com/dataset/documentation, as repeated in intellectape/Yelp-Dataset-Challenge.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from palate.core.dataset import About
from palate.data.json_lines import Key, number, read_records, text
from palate.data.reading import UNTESTED, BadRows, Reading, Tables, about_with, find_file


def yelp(folder: Path, reading: Reading) -> Tables:
    """Reviews with their moment (older editions: their day), businesses with categories and town."""
    bad = BadRows(reading.skip_bad)
    keys = [
        text("user_id", "user", needed=True),
        text("business_id", "item", needed=True),
        Key("date", "time", _moment, pl.Int64, "a date such as 2018-07-07 22:09:11", needed=True),
        number("stars", "rating", needed=True),
        text("text", "review"),
    ]
    events = read_records(find_file(folder, "yelp_academic_dataset_review.json", "review.json"), keys, bad)
    keys = [
        text("business_id", "item", needed=True),
        text("name", "title"),
        Key("categories", "category", _categories, pl.List(pl.String), "text or a list of text"),
        text("city", "city"),
        text("state", "state"),
    ]
    places = read_records(find_file(folder, "yelp_academic_dataset_business.json", "business.json"), keys, bad)
    places = places.unique("item", keep="first", maintain_order=True)
    parts = [pl.col("title"), pl.col("category").list.join(", "), pl.col("city"), pl.col("state")]
    filled = [pl.when(part != "").then(part) for part in parts]
    places = places.with_columns(text=pl.concat_list(filled).list.drop_nulls().list.join(". "))
    about = About(title="Yelp Open Dataset", source="https://www.yelp.com/dataset", licence="Yelp terms: academic use")
    return Tables(events, places, about=about_with(about, bad, UNTESTED))


def _moment(value: Any) -> int:
    return int(datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp() * 1000)


def _categories(value: Any) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value
    return [str(part).strip() for part in parts if str(part).strip()]
