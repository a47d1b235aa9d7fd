"""Data sets by name or by path: where their files are sought, how they are fetched, who reads them.

A name is sought in ``$PALATE_DATA``, then in the user's cache, and is downloaded into the cache when it is in neither.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

from palate.core.config import configure
from palate.core.dataset import Dataset
from palate.core.errors import DataError, DownloadError, nearest
from palate.core.run import Progress
from palate.data.public_sets import CATEGORY, SOURCES, Remote, remotes_of_category
from palate.data.reading import Reading, Tables

Loader = Callable[[Path, Reading], Tables]


WORLDS: Mapping[str, str] = {
    "world": "small",
    "world-small": "small",
    "world-large": "large",
    "world-test": "test",
    "world-two-domains": "two-domains",
}

LAYOUTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("u.data", "u.item"), "movielens:ml_100k"),
    (("ratings.dat", "movies.dat"), "movielens:ml_1m"),
    (("ratings.csv", "movies.csv"), "movielens:csv_edition"),
    (("ratings.csv", "books.csv"), "goodbooks:goodbooks"),
    (("reviews_*.json",), "amazon:reviews_2014"),
    (("meta_*.jsonl",), "amazon:reviews_2023"),
    (("meta_*.json",), "amazon:reviews_2018"),
    (("*_5.json",), "amazon:reviews_2018"),
    (("steam_reviews.json",), "steam:steam"),
    (("australian_user_reviews.json",), "steam:steam"),
    (("*review.json", "*business.json"), "yelp:yelp"),
    (("*.csv", "item_info.csv"), "pixelrec:pixelrec"),
    (("total_tst.csv", "tst.jsonl"), "xrec:xrec"),
    (("*_data.jsonl",), "redial:redial"),
    (("*.inter",), "recbole:recbole"),
    (("*_timestamps.txt",), "sequences:irec"),
    (("*_item2attributes.json",), "sequences:s3rec"),
)
"""Which loader reads a folder, by the files in it (plain or .gz); the first row that fits."""


def load(
    name_or_path: str | Path,
    *,
    shown: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Dataset:
    """The data set of that name, or the one in that file, folder or query (``duckdb:SELECT …``).

    ``options`` are the settings of ``Reading``: positive, min_count, users, duplicates, skip_bad, keep_unseen, columns.
    ``shown`` is told how a table of unknown layout is read, before it is; ``progress`` watches a download.
    """
    reading = configure(Reading, options, "reading data")
    name = str(name_or_path)
    if name in WORLDS:
        _refuse(reading, f"'{name}' is simulated and whole")
        world: Dataset = import_module("palate.data.world").world(WORLDS[name]).dataset
        return world
    from palate.data.loaders.tables import QUERY, read_table

    if name.startswith(QUERY):
        return read_table(name, reading, shown).dataset("query", reading)
    path = Path(name).expanduser()
    if name in SOURCES or CATEGORY.fullmatch(name) or not path.exists():
        found = _find(name, progress)
        if found is not None:
            return _read(found, name, reading)
    if path.is_file():
        return read_table(str(path), reading, shown).dataset(path.name.split(".")[0], reading)
    return _read(path, path.resolve().name, reading)


def places() -> list[Path]:
    """The folders in which data sets are sought by name."""
    shared = os.environ.get("PALATE_DATA")
    return [*([Path(shared).expanduser()] if shared else []), cache()]


def cache() -> Path:
    """Where downloads are kept: ``$PALATE_CACHE``, else ``~/.cache/palate/data``."""
    chosen = os.environ.get("PALATE_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "palate" / "data"


def loader_of(folder: Path) -> Loader | None:
    """Who reads this folder, by the files in it; None when nobody knows the layout."""
    names = [path.name.removesuffix(".gz") for path in folder.iterdir() if path.is_file()]
    for patterns, loader in LAYOUTS:
        if all(any(fnmatch(name, pattern) for name in names) for pattern in patterns):
            if loader == "movielens:ml_1m" and _is_movietweetings(folder):
                loader = "movietweetings:movietweetings"
            return _loader(loader)
    return None


def _loader(name: str) -> Loader:
    module, _, function = name.partition(":")
    found: Loader = getattr(import_module(f"palate.data.loaders.{module}"), function)
    return found


def _is_movietweetings(folder: Path) -> bool:
    """Whether ``::`` files are MovieTweetings: its users are two numbers, those of MovieLens have five fields."""
    from palate.data.delimited import Layout, header_of
    from palate.data.reading import find_optional

    users = find_optional(folder, "users.dat")
    return users is None or len(header_of(users, Layout("::", quoted=False))) == 2


def _read(folder: Path, name: str, reading: Reading) -> Dataset:
    from palate.data.folder import is_folder, read_folder

    if is_folder(folder):
        return _again(read_folder(folder), reading)
    source = SOURCES.get(name)
    loader = _loader(source.loader) if source and source.loader else loader_of(folder)
    if loader is None:
        files = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise DataError(f"{folder} has no layout that is known (it holds {files}); give one file of events instead")
    return loader(folder, reading).dataset(name, reading)


def _again(dataset: Dataset, reading: Reading) -> Dataset:
    """A dataset of the own format, read with further choices."""
    if reading == Reading():
        return dataset
    import polars as pl

    events = dataset.interactions.select(
        pl.Series("user", dataset.users["user"].gather(dataset.interactions["user_row"])),
        pl.Series("item", dataset.items["item"].gather(dataset.interactions["item_row"])),
        pl.exclude("user_row", "item_row"),
    )
    tables = Tables(events, dataset.items, dataset.users, dataset.clock, dataset.about, keep_unseen=True)
    return tables.dataset(dataset.name, reading)


def _refuse(reading: Reading, why: str) -> None:
    if reading != Reading():
        raise DataError(f"{why}: options such as positive or min_count do not apply; convert it first")


def _find(name: str, progress: Progress | None) -> Path | None:
    """The folder of a named data set, fetched when it is not on this machine; an unknown name is an error."""
    source = SOURCES.get(name)
    category = CATEGORY.fullmatch(name)
    folder = source.folder if source else name
    for place in places():
        found = place / folder
        if found.is_dir() and Path(name).name == name and (source or category or _known(found)):
            return found
    if source is None and category is None:
        return _unknown(name)
    remotes = source.remotes if source else remotes_of_category(*category.groups()) if category else ()
    if not remotes:
        sought = ", ".join(str(place / folder) for place in places())
        raise DataError(f"'{name}' is not on this machine (sought {sought}) and {source.why_not if source else ''}")
    return _fetch(cache() / folder, remotes, progress)


def _known(folder: Path) -> bool:
    from palate.data.folder import is_folder

    return is_folder(folder) or loader_of(folder) is not None


def _unknown(name: str) -> Path | None:
    looks_like_path = "/" in name or "." in name
    if looks_like_path:
        raise DataError(f"there is no file or folder '{name}'")
    known = [*SOURCES, *WORLDS]
    raise DataError(f"no data set '{name}'{nearest(name, known)}")


def _fetch(folder: Path, remotes: tuple[Remote, ...], progress: Progress | None) -> Path:
    """Download into the cache; an archive is unpacked into the folder, other files are put in it whole."""
    from palate.data.archive import extract
    from palate.data.download import download

    archived = len(remotes) == 1 and remotes[0].url.endswith(".zip")
    # The folder appears under its name only when all of its files are there.
    aside = folder.parent if archived else folder.with_name(folder.name + ".part")
    try:
        for remote in remotes:
            download(remote.url, aside / remote.url.rsplit("/", 1)[1], sha256=remote.sha256, progress=progress)
    except DownloadError as failure:
        raise DownloadError(f"{failure}; or put the files into {folder} yourself") from None
    if archived:
        return extract(aside / remotes[0].url.rsplit("/", 1)[1], folder)
    os.replace(aside, folder)
    return folder
