"""MovieTweetings (S. Dooms, T. De Pessemier, L. Martens, CrowdRec 2013): ratings from 0 to 10 found in tweets. MIT.

``ratings.dat``, ``movies.dat`` (the README calls it ``items.dat``) and ``users.dat``, utf-8, fields between ``::``;
columns from the README of sidooms/MovieTweetings. A movie's id is its IMDb number with leading zeros, so it is text.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from palate.core.dataset import About
from palate.data.delimited import Field, Layout, read_delimited
from palate.data.loaders.movielens import barred_movies
from palate.data.reading import BadRows, Reading, Tables, about_with, find_file, find_optional


def movietweetings(folder: Path, reading: Reading) -> Tables:
    """One snapshot, such as ``snapshots/100K``."""
    bad = BadRows(reading.skip_bad)
    ratings = read_delimited(
        find_file(folder, "ratings.dat"),
        [
            Field("user_id", "user", pl.Int64, needed=True),
            Field("movie_id", "item", needed=True),
            Field("rating", "rating", pl.Float64, needed=True),
            Field("rating_timestamp", "time", pl.Int64, needed=True),
        ],
        Layout("::", ("user_id", "movie_id", "rating", "rating_timestamp"), quoted=False),
        bad,
    )
    movies = barred_movies(find_file(folder, "movies.dat", "items.dat"), "utf-8", bad)
    users_file = find_optional(folder, "users.dat")
    users = None
    if users_file is not None:
        fields = [Field("userid", "user", needed=True), Field("twitter_id", "twitter_id")]
        users = read_delimited(users_file, fields, Layout("::", ("userid", "twitter_id"), quoted=False), bad)
    about = About(title="MovieTweetings", source="https://github.com/sidooms/MovieTweetings", licence="MIT")
    return Tables(ratings.with_columns(pl.col("time") * 1000), movies, users, about=about_with(about, bad))
