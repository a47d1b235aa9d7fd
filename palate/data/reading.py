"""How a source is read, what reading gives, and what happens to rows that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl
from pydantic import Field as Setting

from palate.core.config import Config
from palate.core.dataset import About, Clock, Dataset
from palate.core.errors import DataError
from palate.data.build import Duplicates, dataset_from


class Reading(Config):
    """What the reader of a data set may choose; the same for every source."""

    positive: str | None = None
    """Which events count, such as ``rating>=4`` or ``kind=buy``; several with a comma."""
    min_count: int = Setting(0, ge=0)
    """The k of an iterated k-core; 0 = no filter."""
    users: int | None = Setting(None, ge=1)
    """Keep so many users, drawn from those that are left, always the same ones; the data set's name says so."""
    duplicates: Duplicates = "keep"
    """Of several events of one user with one item: keep all, the first or the last."""
    skip_bad: int = Setting(0, ge=0)
    """How many unreadable rows to leave out, each listed in the notes, before giving up."""
    keep_unseen: bool | None = None
    """Whether listed items and users without events stay; None = what the source's users do."""
    columns: dict[str, str] = Setting(default_factory=dict)
    """For tables of any layout: which column is what, such as ``{"user": "customer_id"}``."""


@dataclass(frozen=True)
class Tables:
    """What a loader reads from a source, before positives, k-core and numbering."""

    interactions: pl.DataFrame | pl.LazyFrame
    items: pl.DataFrame | None = None
    users: pl.DataFrame | None = None
    clock: Clock = "unix"
    about: About = field(default_factory=About)
    keep_unseen: bool = False
    """Whether a listed item without an event belongs to this source's catalogue by default."""

    def dataset(self, name: str, reading: Reading) -> Dataset:
        """The dataset that ``reading`` asks for."""
        unseen = self.keep_unseen and reading.users is None
        return dataset_from(
            name,
            self.interactions,
            items=self.items,
            users=self.users,
            clock=self.clock,
            about=self.about,
            min_count=reading.min_count,
            positive=reading.positive,
            duplicates=reading.duplicates,
            keep_unseen=unseen if reading.keep_unseen is None else reading.keep_unseen,
            some_users=reading.users,
        )


class BadRows:
    """Rows that cannot be read. Up to ``limit`` are left out and listed; one more is an error."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.found: list[DataError] = []

    def add(self, problem: DataError) -> None:
        """Note a row that is left out, or raise when there are too many."""
        self.found.append(problem)
        if self.limit == 0:
            raise problem
        if len(self.found) > self.limit:
            raise DataError(f"more than {self.limit} rows cannot be read; the next is {problem}")

    @property
    def notes(self) -> tuple[str, ...]:
        """One line a row that was left out."""
        return tuple(f"left out {problem}" for problem in self.found)


UNTESTED = "untested on the original"
"""The note of every loader whose original file was not at hand when it was written."""


def find_file(folder: Path, *names: str) -> Path:
    """The first of ``names`` that is in ``folder``, plain or gzipped. Raises ``DataError``."""
    found = find_optional(folder, *names)
    if found is None:
        raise DataError(f"{folder} has no file {_either(names)} (plain or .gz)")
    return found


def find_optional(folder: Path, *names: str) -> Path | None:
    """Like ``find_file``, but None when there is none."""
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    return None


def _either(names: Iterable[str]) -> str:
    return " or ".join(f"'{name}'" for name in names)


def about_with(about: About, bad: BadRows, *notes: str) -> About:
    """``about`` with the rows that were left out and further notes."""
    return replace(about, notes=(*about.notes, *notes, *bad.notes))
