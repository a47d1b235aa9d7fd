"""Goodbooks-10k (Z. Zając, 2017): six million ratings of ten thousand books. CC BY-SA 4.0.

``ratings.csv`` (user_id, book_id, rating; "sorted by time", without times, so only the order is known), ``books.csv``
and, where they are there, ``book_tags.csv`` with ``tags.csv``. Columns from the README and files of
zygmuntz/goodbooks-10k. ``ratings.csv`` untested on the original; ``books.csv`` and ``tags.csv`` are.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from palate.core.dataset import About
from palate.data.delimited import Field, read_delimited
from palate.data.reading import UNTESTED, BadRows, Reading, Tables, about_with, find_file, find_optional

TAGS_PER_BOOK = 5


def goodbooks(folder: Path, reading: Reading) -> Tables:
    """Ratings in the order of the file, books with title, authors, year and their most used tags."""
    bad = BadRows(reading.skip_bad)
    ratings = read_delimited(
        find_file(folder, "ratings.csv"),
        [
            Field("user_id", "user", pl.Int64, needed=True),
            Field("book_id", "item", pl.Int64, needed=True),
            Field("rating", "rating", pl.Float64, needed=True),
        ],
        bad=bad,
    )
    about = About(
        title="Goodbooks-10k",
        source="https://github.com/zygmuntz/goodbooks-10k",
        licence="CC BY-SA 4.0",
        ties="the order of the file",
    )
    return Tables(ratings, books(folder, bad), clock="order", about=about_with(about, bad, UNTESTED))


def books(folder: Path, bad: BadRows) -> pl.DataFrame:
    """What is known about each book."""
    table = read_delimited(
        find_file(folder, "books.csv"),
        [
            Field("book_id", "item", needed=True),
            Field("goodreads_book_id", "goodreads"),
            Field("title", "title"),
            Field("authors", "authors"),
            Field("original_publication_year", "year", pl.Float64),
            Field("language_code", "language"),
            Field("image_url", "image"),
        ],
        bad=bad,
    ).with_columns(pl.col("year").cast(pl.Int32, strict=False))
    table = table.join(_tags(folder, bad), on="goodreads", how="left", maintain_order="left")
    table = table.with_columns(pl.col("category").fill_null([]))
    parts = [
        pl.col("title"),
        pl.concat_str(pl.lit("By "), pl.col("authors")),
        pl.concat_str(pl.lit("First published "), pl.col("year").cast(pl.String)),
        pl.when(pl.col("category").list.len() > 0).then(pl.col("category").list.join(", ")),
    ]
    text = pl.concat_list(parts).list.drop_nulls().list.join(". ")
    return table.with_columns(text=pl.concat_str(text, pl.lit("."))).drop("goodreads")


def _tags(folder: Path, bad: BadRows) -> pl.DataFrame:
    """The most used tags of each book, by ``goodreads`` id; an empty table where the files are not there."""
    of_books, names = find_optional(folder, "book_tags.csv"), find_optional(folder, "tags.csv")
    if of_books is None or names is None:
        return pl.DataFrame(schema={"goodreads": pl.String, "category": pl.List(pl.String)})
    used = read_delimited(
        of_books,
        [
            Field("goodreads_book_id", "goodreads", needed=True),
            Field("tag_id", "tag", needed=True),
            Field("count", "count", pl.Int64, needed=True),
        ],
        bad=bad,
    )
    named = read_delimited(names, [Field("tag_id", "tag", needed=True), Field("tag_name", "name")], bad=bad)
    # The file lists a book's tags by falling count; a stable sort keeps that order among equals.
    used = used.sort("count", descending=True, maintain_order=True).join(named, on="tag", maintain_order="left")
    return used.group_by("goodreads", maintain_order=True).agg(category=pl.col("name").head(TAGS_PER_BOOK))
