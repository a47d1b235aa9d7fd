"""MovieLens, as GroupLens publishes it: 100K, 1M, the small and the large CSV editions.

F. M. Harper and J. A. Konstan, *The MovieLens Datasets: History and Context*, TiiS 5(4), 2015. Columns were read in the
README of each edition. Every rating is an event; ratings of one user that share a second keep the order of the file.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from palate.core.dataset import About
from palate.core.errors import DataError
from palate.data.delimited import Field, Layout, read_delimited
from palate.data.json_lines import read_records, text, whole
from palate.data.reading import UNTESTED, BadRows, Reading, Tables, about_with, find_file, find_optional

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""The flags of ``u.item`` in order (``u.genre``). The first says that no genre is known, and is none itself."""

_100K_ITEM = ("movie id", "movie title", "release date", "video release date", "IMDb URL", *GENRES)
_LICENCE = "GroupLens research licence: no redistribution, no commercial use without permission"


def ml_100k(folder: Path, reading: Reading) -> Tables:
    """The 1998 edition: ``u.data`` (tabs), ``u.item`` (bars, ISO-8859-1, 19 genre flags), ``u.user`` (bars)."""
    bad = BadRows(reading.skip_bad)
    columns = ("user id", "item id", "rating", "timestamp")
    ratings = read_delimited(
        find_file(folder, "u.data"), _rating_fields(*columns), Layout("\t", columns, quoted=False), bad
    )
    flags = [Field(genre, genre, pl.Int64) for genre in GENRES]
    bars = Layout("|", _100K_ITEM, quoted=False, encoding="iso-8859-1")
    movies = read_delimited(
        find_file(folder, "u.item"),
        [
            Field("movie id", "item", needed=True),
            Field("movie title", "title"),
            Field("release date", "released"),
            *flags,
        ],
        bars,
        bad,
    )
    genres = pl.concat_list([pl.when(pl.col(genre) == 1).then(pl.lit(genre)) for genre in GENRES[1:]]).list.drop_nulls()
    movies = movies.with_columns(category=genres, year=pl.col("released").str.slice(-4).cast(pl.Int32, strict=False))
    users = read_delimited(
        find_file(folder, "u.user"),
        [Field("user id", "user", needed=True), Field("age", "age", pl.Int64)]
        + [Field(name, name) for name in ("gender", "occupation", "zip code")],
        Layout("|", ("user id", "age", "gender", "occupation", "zip code"), quoted=False),
        bad,
    )
    about = About(title="MovieLens 100K", source="https://grouplens.org/datasets/movielens/100k/", licence=_LICENCE)
    return Tables(
        _in_milliseconds(ratings), described(movies.drop(*GENRES, "released")), users, about=about_with(about, bad)
    )


def ml_100k_plots(folder: Path, reading: Reading) -> Tables:
    """``ml_100k`` with what OMDb knows of the films, from ``omdb_metadata.jsonl`` beside its files: one record a line,
    with ``movie_id`` of ``u.item``, ``Plot``, ``Director``, ``Country`` and ``Language``; ``N/A`` is unknown.

    The plot ends an item's ``text`` and is a column of its own. Raises ``DataError`` where the file is not there, or
    tells of a film twice.
    """
    path, bad = find_file(folder, "omdb_metadata.jsonl"), BadRows(reading.skip_bad)
    tables = ml_100k(folder, reading)
    assert tables.items is not None
    told = [text(name, name.lower()) for name in ("Plot", "Director", "Country", "Language")]
    records = read_records(path, [whole("movie_id", "item", needed=True), *told], bad)
    if records["item"].is_duplicated().any():
        twice = records["item"].filter(records["item"].is_duplicated())[0]
        raise DataError(f"{path.name} has two records of movie_id {twice}")
    known = pl.col(pl.String).str.strip_chars().replace(["N/A", ""], None)
    records = records.with_columns(known).with_columns(pl.col("item").cast(tables.items.schema["item"]))
    items = tables.items.join(records, on="item", how="left", maintain_order="left")
    items = items.with_columns(text=pl.concat_str("text", "plot", separator=" ", ignore_nulls=True))
    about = replace(
        tables.about, title="MovieLens 100K with plots", licence=f"{_LICENCE}; plots from OMDb: CC BY-NC 4.0"
    )
    return replace(tables, items=items, about=about_with(about, bad))


def ml_1m(folder: Path, reading: Reading) -> Tables:
    """The 2003 edition: ``ratings.dat``, ``movies.dat`` (ISO-8859-1), ``users.dat``, fields between ``::``.

    ``ratings.dat`` untested on the original; ``movies.dat`` is.
    """
    bad = BadRows(reading.skip_bad)
    columns = ("UserID", "MovieID", "Rating", "Timestamp")
    ratings = read_delimited(
        find_file(folder, "ratings.dat"), _rating_fields(*columns), Layout("::", columns, quoted=False), bad
    )
    movies = barred_movies(find_file(folder, "movies.dat"), "iso-8859-1", bad)
    about_users = ("UserID", "Gender", "Age", "Occupation", "Zip-code")
    users = read_delimited(
        find_file(folder, "users.dat"),
        [Field("UserID", "user", needed=True)]
        + [Field(name, name.lower().replace("-", " ")) for name in about_users[1:]],
        Layout("::", about_users, quoted=False),
        bad,
    )
    about = About(title="MovieLens 1M", source="https://grouplens.org/datasets/movielens/1m/", licence=_LICENCE)
    return Tables(_in_milliseconds(ratings), movies, users, about=about_with(about, bad, UNTESTED))


def csv_edition(folder: Path, reading: Reading) -> Tables:
    """Latest-small, 20M, 25M and 32M: ``ratings.csv``, ``movies.csv`` and, where it is there, ``links.csv``.

    20M, 25M and 32M have the columns of latest-small and are untested on the originals.
    """
    bad = BadRows(reading.skip_bad)
    path = find_file(folder, "ratings.csv")
    ratings = read_delimited(path, _rating_fields("userId", "movieId", "rating", "timestamp"), bad=bad)
    movies = read_delimited(
        find_file(folder, "movies.csv"),
        [Field("movieId", "item", needed=True), Field("title", "title"), Field("genres", "genres")],
        bad=bad,
    )
    links = find_optional(folder, "links.csv")
    if links is not None:
        ids = [Field("movieId", "item", needed=True), Field("imdbId", "imdb"), Field("tmdbId", "tmdb")]
        movies = movies.join(read_delimited(links, ids, bad=bad), on="item", how="left", maintain_order="left")
    about = About(
        title=f"MovieLens ({folder.name})", source="https://grouplens.org/datasets/movielens/", licence=_LICENCE
    )
    seen_edition = ratings.height <= 200_000
    notes = () if seen_edition else (UNTESTED,)
    return Tables(_in_milliseconds(ratings), described(_split_genres(movies)), about=about_with(about, bad, *notes))


def barred_movies(path: Path, encoding: str, bad: BadRows) -> pl.DataFrame:
    """``movies.dat``: id, title with the year, genres between bars."""
    layout = Layout("::", ("MovieID", "Title", "Genres"), quoted=False, encoding=encoding)
    fields = [Field("MovieID", "item", needed=True), Field("Title", "title"), Field("Genres", "genres")]
    return described(_split_genres(read_delimited(path, fields, layout, bad)))


def _split_genres(movies: pl.DataFrame) -> pl.DataFrame:
    """``genres`` as a list, and the year that the title ends with."""
    genres = pl.col("genres").fill_null("").replace("(no genres listed)", "").str.split("|")
    year = pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int32)
    return movies.with_columns(category=genres.list.filter(pl.element() != ""), year=year).drop("genres")


def _rating_fields(user: str, item: str, rating: str, time: str) -> list[Field]:
    return [
        Field(user, "user", pl.Int64, needed=True),
        Field(item, "item", pl.Int64, needed=True),
        Field(rating, "rating", pl.Float64, needed=True),
        Field(time, "time", pl.Int64, needed=True),
    ]


def _in_milliseconds(ratings: pl.DataFrame) -> pl.DataFrame:
    return ratings.with_columns(pl.col("time") * 1000)


def described(movies: pl.DataFrame) -> pl.DataFrame:
    """Adds ``text``: the title, the genres, and the year where the title does not say it."""
    genres = pl.col("category").list.join(", ")
    year = pl.when(pl.col("year").is_null() | pl.col("title").str.contains(r"\(\d{4}\)")).then(pl.lit(""))
    text = pl.concat_str(
        pl.col("title"),
        pl.when(genres.fill_null("") == "").then(pl.lit("")).otherwise(pl.concat_str(pl.lit(". "), genres)),
        year.otherwise(pl.concat_str(pl.lit(". Released "), pl.col("year").cast(pl.String))),
        pl.lit("."),
        ignore_nulls=True,
    )
    return movies.with_columns(text=text).select(
        "item", "title", "text", "category", pl.exclude("item", "title", "text", "category")
    )
