"""The items: real books and films from ``books.jsonl`` and ``films.jsonl``, and beyond them invented volumes.

Facts are true: author or director, year, place in the series. Descriptions are written for this catalogue, and every
theme of a record is named in its description (``THEMES`` lists the words), so that taste over themes can be read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import polars as pl

Rows = npt.NDArray[np.int64]

# theme → (what a reader says when asking for it, the words that make it visible in a description)
THEMES: dict[str, tuple[str, str]] = {
    "sea voyage": ("the sea and a long voyage", r"sea|voyages?|ships?|sails?|sailors?"),
    "revenge": ("revenge", r"revenge|vengeance"),
    "growing up": ("growing up", r"growing up|coming of age|grows up"),
    "artificial minds": ("robots and artificial minds", r"robots?|androids?|artificial|thinking machines?"),
    "love": ("love", r"loves?|loved|loving|lovers?|beloved"),
    "marriage": ("marriage", r"marriages?|marry|marries|married"),
    "family": ("family", r"family|families"),
    "war": ("war", r"wars?"),
    "murder": ("murder", r"murders?|murdered|murderer"),
    "detection": ("a detective at work", r"detectives?|detection|detects|clues?"),
    "ghosts and monsters": ("a ghost or a monster", r"ghosts?|ghostly|haunted|haunts?|monsters?|vampires?"),
    "magic": ("magic", r"magic|wizards?"),
    "quest": ("a quest or a journey", r"quest|journeys?"),
    "friendship": ("friends who stay together", r"friends?|friendships?"),
    "animals": ("animals", r"animals?"),
    "survival": ("people who must survive", r"survives?|survived|survival"),
    "outer space": ("space and other planets", r"space|planets?"),
    "tyranny": ("tyranny", r"tyranny|tyrants?"),
    "faith": ("faith", r"faith"),
    "money": ("money and fortune", r"money|fortune|debts?"),
    "madness": ("madness", r"mad|madness"),
    "justice": ("justice", r"justice|trial"),
    "secrets": ("a secret", r"secrets?"),
    "nature": ("nature and wilderness", r"nature|wilderness"),
    "comedy": ("something comic", r"comic|comically|comedy"),
    "wisdom": ("wisdom", r"wisdom|wise"),
}
THEME_NAMES: tuple[str, ...] = tuple(THEMES)
SLOTS = 4  # themes an item has at most

_PLACES = ("Salt", "Amber", "Heron", "Winter", "Copper", "Lantern", "Willow", "Granite", "Orchard", "Harbour")
_THINGS = ("Road", "Crown", "Garden", "Archive", "River", "Bridge", "Letters", "Mirror", "Watch", "Gate")
_SAGA_VOLUMES = 12
_SAGA_EVERY = 5  # of five invented sets three are sagas with a reading order, two are libraries without


@dataclass(frozen=True)
class Record:
    """One item as it stands in the catalogue. ``author`` is the director of a film; a year below 0 is BCE."""

    title: str
    author: str
    year: int
    genres: tuple[str, ...]
    themes: tuple[str, ...]
    description: str
    series: str | None = None
    series_position: int | None = None
    domain: str = "book"
    invented: bool = False

    @property
    def text(self) -> str:
        """What a language model reads about the item."""
        year = f"{-self.year} BCE" if self.year < 0 else str(self.year)
        made = "directed" if self.domain == "film" else "written"
        series = f" {self.series}, number {self.series_position}." if self.series else ""
        head = f"{self.title}, {made} by {self.author}, {year}. {', '.join(self.genres).capitalize()}.{series}"
        asked = [THEMES[theme][0] for theme in self.themes]
        those = "viewers" if self.domain == "film" else "readers"
        return f"{head} {self.description} For {those} of {', '.join(asked[:-1])} and {asked[-1]}."


@lru_cache(maxsize=2)
def real_records(domain: str) -> tuple[Record, ...]:
    """All real records of ``book`` or ``film``, in catalogue order (whole series first, so a prefix makes sense)."""
    lines = resources.files("palate.data.world").joinpath(f"{domain}s.jsonl").read_text("utf-8").splitlines()
    records = []
    for line in lines:
        fields = json.loads(line)
        fields["author"] = fields.pop("director", None) or fields["author"]
        fields["genres"], fields["themes"] = tuple(fields["genres"]), tuple(fields["themes"])
        records.append(Record(**fields, domain=domain))
    return tuple(records)


def invented_records(n: int, seed: int) -> list[Record]:
    """``n`` volumes no one wrote, for sizes beyond the real catalogue: "Volume 7 of The Salt Road".

    Three sets in five are sagas, read in order; the others are libraries whose volumes stand alone.
    """
    rng = np.random.default_rng([seed, 7])
    n_sets = -(-n // _SAGA_VOLUMES)
    saga_themes = np.argsort(rng.random((n_sets, len(THEMES))), axis=1)[:, :3]
    themes = np.argsort(rng.random((n, len(THEMES))), axis=1)[:, :3]
    genres = sorted({genre for record in real_records("book") for genre in record.genres})
    genre_of_set = rng.integers(len(genres), size=n_sets)
    records = []
    for row in range(n):
        number, volume = row // _SAGA_VOLUMES, row % _SAGA_VOLUMES + 1
        saga = number % _SAGA_EVERY < 3
        pair = number % (len(_PLACES) * len(_THINGS))
        again = number // (len(_PLACES) * len(_THINGS))
        name = f"The {_PLACES[pair % 10]} {_THINGS[pair // 10]}" + (f" {again + 1}" if again else "")
        name += "" if saga else " Library"
        # a saga keeps two themes through all volumes and changes the third
        chosen = [*saga_themes[number, :2], themes[row, 0]] if saga else list(themes[row])
        names = tuple(dict.fromkeys(THEME_NAMES[theme] for theme in chosen))
        asked = [THEMES[theme][0] for theme in names]
        records.append(
            Record(
                title=f"Volume {volume} of {name}",
                author=f"Invented Author {number + 1}",
                year=2000 + volume,
                genres=(genres[genre_of_set[number]],),
                themes=names,
                description=f"An invented book about {', '.join(asked[:-1])} and {asked[-1]}.",
                series=name if saga else None,
                series_position=volume if saga else None,
                invented=True,
            )
        )
    return records


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Records with the arrays the simulation reads; row ``i`` everywhere is item row ``i`` of the dataset."""

    records: tuple[Record, ...]
    ids: tuple[str, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def theme_slots(self) -> npt.NDArray[np.int16]:
        """``[N, 4]`` theme numbers; an empty slot holds ``len(THEMES)``."""
        place = {name: number for number, name in enumerate(THEME_NAMES)}
        slots = np.full((len(self), SLOTS), len(THEMES), dtype=np.int16)
        for row, record in enumerate(self.records):
            slots[row, : len(record.themes)] = [place[theme] for theme in record.themes]
        return slots

    @cached_property
    def themes(self) -> npt.NDArray[np.float32]:
        """``[N, 26]`` 1 where the item has the theme."""
        dense = np.zeros((len(self), len(THEMES) + 1), dtype=np.float32)
        np.put_along_axis(dense, self.theme_slots.astype(np.int64), 1.0, axis=1)
        return dense[:, :-1]

    @cached_property
    def is_film(self) -> npt.NDArray[np.bool_]:
        return np.array([record.domain == "film" for record in self.records], dtype=bool)

    def chain(self, kind: str, skip: npt.NDArray[np.bool_] | None = None) -> Rows:
        """``[N]`` the row that follows each item, or -1: the next volume (``series``) or later book (``author``).

        ``skip`` leaves items out of the chain: their predecessor points past them.
        """
        groups: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for row, record in enumerate(self.records):
            if skip is not None and skip[row]:
                continue
            if kind == "series" and record.series:
                groups.setdefault((record.domain, record.series), []).append((record.series_position or 0, row))
            elif kind == "author":
                groups.setdefault((record.domain, record.author), []).append((record.year, row))
        after = np.full(len(self), -1, dtype=np.int64)
        for members in groups.values():
            rows = [row for _, row in sorted(members)]
            after[rows[:-1]] = rows[1:]
        return after

    def table(self) -> pl.DataFrame:
        """The items table. Themes are left out on purpose: a system must read them from the text."""
        import polars as pl

        records = self.records
        columns = {
            "item": self.ids,
            "title": [r.title for r in records],
            "text": [r.text for r in records],
            "category": [list(r.genres) for r in records],
            "author": [r.author for r in records],
            "year": [r.year for r in records],
            "series": [r.series for r in records],
            "series_position": [r.series_position for r in records],
            "domain": [r.domain for r in records],
            "invented": [r.invented for r in records],
            "available": [True] * len(records),
            "image": [f"covers/{name}.png" for name in self.ids],
        }
        kinds: dict[str, Any] = {
            "category": pl.List(pl.String),
            "year": pl.Int32,
            "series": pl.String,
            "series_position": pl.Int32,
        }
        return pl.DataFrame(columns, schema_overrides=kinds)


def catalogue(books: int, films: int, seed: int) -> Catalogue:
    """The first ``books`` books (invented ones after the last real one) and the first ``films`` films."""
    real = real_records("book")
    chosen = list(real[:books]) + invented_records(max(0, books - len(real)), seed)
    shown = real_records("film")[:films]
    width = max(3, len(str(books)))
    ids = [f"b{number:0{width}d}" for number in range(1, len(chosen) + 1)]
    ids += [f"f{number:03d}" for number in range(1, len(shown) + 1)]
    return Catalogue((*chosen, *shown), tuple(ids))
