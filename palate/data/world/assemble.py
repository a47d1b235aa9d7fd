"""Put the parts together: catalogue, readers, events, words → a ``World`` with its dataset, truth and covers."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from palate.core.config import configure
from palate.core.dataset import About, Dataset
from palate.data.world.catalogue import Catalogue, catalogue
from palate.data.world.dials import VERSION, Signal, WorldConfig, dials
from palate.data.world.readers import Readers, readers
from palate.data.world.reviews import reviews
from palate.data.world.simulate import NOISE, Events, ItemTraits, item_traits, simulate

if TYPE_CHECKING:
    import polars as pl
    from PIL import Image


@dataclass(frozen=True, eq=False)
class Truth:
    """What was planted. No system ever receives this; tests and oracles do. Arrays are in the dataset's row order."""

    readers: Readers
    items: ItemTraits
    themes: npt.NDArray[np.float32]  # [N, 26] 1 where the item has the theme
    noise: npt.NDArray[np.bool_]  # [E] the event is noise
    cause: npt.NDArray[np.int8]  # [E] position in simulate.CAUSES


@dataclass(frozen=True, eq=False)
class World:
    """A simulated world: ``dataset`` is what systems see, ``truth`` what was planted, covers what can be drawn."""

    name: str
    config: WorldConfig
    catalogue: Catalogue
    truth: Truth
    dataset: Dataset

    @cached_property
    def cold_rows(self) -> npt.NDArray[np.int64]:
        """Item rows that have no event before the last two of any reader."""
        return np.flatnonzero(self.truth.items.cold)

    def cover(self, row: int) -> Image.Image:
        """The cover of item row ``row``, drawn now."""
        from palate.data.world.covers import draw_cover

        return draw_cover(self.catalogue.records[row], int(self.truth.items.motif[row]), self.config.seed)

    def covers(self, folder: str | Path) -> Path:
        """Draw every cover to ``folder``, at the paths the column ``image`` names; returns the folder."""
        root = Path(folder)
        for row, path in enumerate(self.dataset.items["image"].to_list()):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            self.cover(row).save(root / path)
        return root


def world(
    name: str | None = "small",
    *,
    readers: int | None = None,
    items: int | None = None,
    seed: int = 0,
    shuffled: Signal | None = None,
    **settings: Any,
) -> World:
    """Build a world: ``small``, ``large``, ``test`` or ``two-domains``, the same to the byte for the same arguments.

    ``readers`` and ``items`` (books; real ones first, invented ones after them) change the size; ``shuffled`` names
    the one planted signal to destroy (a control); any other field of ``WorldConfig`` may be given by name.
    """
    name = name or "small"
    sizes = {"readers": readers, "books": items}
    chosen = {key: value for key, value in sizes.items() if value is not None}
    config = dials(name, {**chosen, "seed": seed, "shuffled": shuffled, **settings})
    return _build(name, config)


def planted(dataset: Dataset) -> World | None:
    """The world that ``dataset`` is, with its truth; None for other data and for a world of another version."""
    if dataset.about.source != "palate.data.world" or dataset.about.notes[:1] != (f"version {VERSION}",):
        return None
    config = configure(WorldConfig, json.loads(dataset.about.notes[1]), "world")
    again = _build(dataset.name.removeprefix("world-"), config)
    return again if again.dataset.user_ids == dataset.user_ids else None


def _build(name: str, config: WorldConfig) -> World:
    items, who = catalogue(config.books, config.films, config.seed), readers(config)
    traits = item_traits(config, items)
    events = simulate(config, items, who, traits)
    rng = np.random.default_rng([config.seed, 5])
    noise = events.cause == NOISE
    truth = Truth(
        readers=who,
        items=traits,
        themes=items.themes,
        noise=rng.permutation(noise) if config.shuffled == "noise" else noise,
        cause=events.cause,
    )
    other = rng.permutation(len(who)) if config.shuffled == "preferences" else None
    dataset = Dataset(
        name=f"world-{name}",
        interactions=_interactions(config, events, who, items, rng),
        items=items.table(),
        users=who.table(other),
        clock="unix",
        about=_about(name, config),
    )
    return World(name, config, items, truth, dataset)


def _interactions(
    config: WorldConfig, events: Events, who: Readers, items: Catalogue, rng: np.random.Generator
) -> pl.DataFrame:
    import polars as pl

    kind = pl.Series(["read", "watch"]).gather(items.is_film[events.item_rows].astype(np.int64))
    columns: dict[str, Any] = {
        "user_row": events.user_rows,
        "item_row": events.item_rows,
        "time": events.times,
        "rating": events.ratings,
        "kind": kind,
    }
    if config.reviews:
        if config.shuffled == "reviews":
            order = rng.permutation(len(events.times))
            events = replace(events, user_rows=events.user_rows[order], item_rows=events.item_rows[order])
            events = replace(events, ratings=events.ratings[order])
        columns["review"] = reviews(events, who, items, config.seed)
    return pl.DataFrame(columns)


def _about(name: str, config: WorldConfig) -> About:
    control = f"; control with '{config.shuffled}' shuffled" if config.shuffled else ""
    return About(
        title=f"The world '{name}', version {VERSION}: real titles, simulated readers{control}",
        source="palate.data.world",
        licence="Apache-2.0 (catalogue and simulation); titles, authors and years are facts",
        simulated=True,
        notes=(f"version {VERSION}", config.model_dump_json()),
    )
