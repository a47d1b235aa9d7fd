"""Every number the world depends on, in one frozen object, and the named worlds built from it.

The numbers are frozen together with ``VERSION``: a change of any default, record, template or drawing rule that can
alter a table bumps the version, and every figure measured on the old one is measured again.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from palate.core.config import Config, configure, override
from palate.core.errors import ConfigError, nearest

VERSION = "1"

Signal = Literal["taste", "circle", "order", "motif", "reviews", "preferences", "noise", "popularity"]
SIGNALS: tuple[str, ...] = ("taste", "circle", "order", "motif", "reviews", "preferences", "noise", "popularity")


class WorldConfig(Config):
    """Sizes, strengths and shares. Strengths are added log-odds, so 1.0 makes a choice about 2.7 times likelier."""

    readers: int = Field(800, ge=2)
    books: int = Field(300, ge=0, description="real books first, invented volumes after the last real one")
    films: int = Field(0, ge=0, le=150)
    seed: int = Field(0, ge=0)
    events_low: int = Field(20, ge=4, description="shortest history, in events")
    events_high: int = Field(40, ge=4, description="longest history, in events")

    taste: float = Field(2.2, ge=0, description="log-odds for each theme of an item the reader loves")
    loved: int = Field(4, ge=1, le=8, description="themes a reader loves")
    avoided: int = Field(2, ge=0, le=8, description="themes a reader avoids; each takes `taste` away")
    circle: float = Field(3.0, ge=0, description="log-odds for an item of the reader's own circle")
    circles: int = Field(8, ge=2, description="hidden groups of readers and items, independent of all text")
    motif: float = Field(2.0, ge=0, description="log-odds for a cover with the motif a fan likes")
    motif_fans: float = Field(0.6, ge=0, le=1, description="share of readers who choose by the cover at all")
    popularity: float = Field(1.0, ge=0, description="Zipf exponent of the items' general appeal")

    next_in_series: float = Field(0.4, ge=0, le=1, description="chance that the next volume follows a volume")
    next_by_author: float = Field(0.3, ge=0, le=1, description="else: chance that the author's next book follows")
    noise: float = Field(0.1, ge=0, le=1, description="share of events drawn evenly, whoever reads")

    cold_share: float = Field(0.1, ge=0, lt=1, description="share of items that appear late only")
    cold_last: float = Field(0.2, ge=0, le=1, description="chance that a reader's last event is a cold item")
    cold_before: float = Field(0.1, ge=0, le=1, description="the same for the event before the last")

    film_only: float = Field(0.2, ge=0, le=1, description="with films: share of readers who only watch")
    book_only: float = Field(0.3, ge=0, le=1, description="with films: share of readers who only read")

    candidates: int = Field(512, ge=128, description="items a reader weighs; larger catalogues are sampled first")
    reviews: bool = True
    shuffled: Signal | None = None


NAMED: dict[str, dict[str, Any]] = {
    "small": {},
    "test": {
        "readers": 120,
        "books": 60,
        "events_low": 10,
        "events_high": 18,
        "circles": 4,
        "cold_share": 0.2,
        "cold_last": 0.25,
    },
    "large": {"readers": 5000},
    "two-domains": {"films": 150, "readers": 1200},
}


def dials(name: str, settings: dict[str, Any]) -> WorldConfig:
    """The settings of a named world with some of them changed; an unknown name or key is one clear sentence."""
    if name not in NAMED:
        raise ConfigError(f"no world '{name}'{nearest(name, NAMED)}; there are {', '.join(NAMED)}")
    named = configure(WorldConfig, NAMED[name], f"world '{name}'")
    config = override(named, settings, f"world '{name}'")
    if config.events_high < config.events_low:
        raise ConfigError(f"world '{name}': events_high is {config.events_high}, below events_low {config.events_low}")
    n_items = config.books + config.films
    if config.films and n_items > config.candidates:
        raise ConfigError(
            f"world '{name}': with films a reader weighs every item; {n_items} items need candidates={n_items}"
        )
    # readers must never run out of items of the one domain they use
    smallest = min(config.books, config.films) if config.books and config.films else n_items
    if config.events_high > smallest * (1 - config.cold_share) / 2:
        raise ConfigError(f"world '{name}': {config.events_high} events a reader are too many for {smallest} items")
    return config
