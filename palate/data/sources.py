"""Data sets by name: what each is called, where its files are sought, who reads them.

A name is sought in ``$PALATE_DATA``, then in the user's cache, and is downloaded when it is in neither.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from palate.core.config import configure
from palate.core.dataset import Dataset
from palate.core.errors import DataError, nearest
from palate.data.reading import Reading, Tables

Loader = Callable[[Path, Reading], Tables]


@dataclass(frozen=True)
class Source:
    """A public data set. loader: ``module:function`` in ``palate.data.loaders``; folder: where its files lie."""

    loader: str
    folder: str

    def read(self, folder: Path, reading: Reading) -> Tables:
        module, _, function = self.loader.partition(":")
        found: Loader = getattr(import_module(f"palate.data.loaders.{module}"), function)
        return found(folder, reading)


SOURCES: Mapping[str, Source] = {
    "ml-100k": Source("movielens:ml_100k", "ml-100k"),
}
WORLDS: Mapping[str, str] = {
    "world": "small",
    "world-small": "small",
    "world-test": "test",
    "world-two-domains": "two-domains",
}


def load(name_or_path: str | Path, **options: Any) -> Dataset:
    """The data set of that name, or the one in that file or folder.

    ``options`` are the settings of ``Reading``: positive, min_count, duplicates, skip_bad, keep_unseen, columns.
    """
    reading = configure(Reading, options, "reading data")
    name = str(name_or_path)
    if name in WORLDS:
        return _world(name)
    if name in SOURCES:
        source = SOURCES[name]
        return source.read(_folder_of(name, source), reading).dataset(name, reading)
    raise DataError(f"no data set or file '{name}'{nearest(name, [*SOURCES, *WORLDS])}")


def places() -> list[Path]:
    """The folders in which data sets are sought by name."""
    shared = os.environ.get("PALATE_DATA")
    return [*([Path(shared).expanduser()] if shared else []), cache()]


def cache() -> Path:
    """Where downloads are kept: ``$PALATE_CACHE``, else ``~/.cache/palate/data``."""
    chosen = os.environ.get("PALATE_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "palate" / "data"


def _folder_of(name: str, source: Source) -> Path:
    for place in places():
        if (place / source.folder).is_dir():
            return place / source.folder
    sought = ", ".join(str(place / source.folder) for place in places())
    raise DataError(f"'{name}' is not on this machine (sought {sought})")


def _world(name: str) -> Dataset:
    module = import_module("palate.data.world")
    return module.world(WORLDS[name]).dataset
