"""What readers write: an opening that follows the rating, a word on the item's themes, a wish that names a taste.

Sentences are gathered from small tables, all events at once, so ten million reviews take no loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from palate.data.world.catalogue import SLOTS, THEMES, Catalogue, Rows
from palate.data.world.readers import Readers
from palate.data.world.simulate import Events

if TYPE_CHECKING:
    import polars as pl

# opening by stars; the words differ between neighbours, so that a reader of the text can tell 4 from 5
OPENINGS: dict[int, tuple[str, ...]] = {
    1: ("A waste of an evening.", "Dreadful, I gave up halfway.", "I disliked it.", "Terrible, not for me."),
    2: ("Rather dull.", "Disappointing on the whole.", "It dragged, and I was bored.", "Weak, with a few good lines."),
    3: ("It was all right.", "Neither good nor bad.", "Decent enough to pass the time.", "A mixed bag, but fair."),
    4: ("Very good company.", "I enjoyed this a lot.", "A strong piece of work.", "Good from start to finish."),
    5: ("A masterpiece.", "I could not put it down.", "Wonderful, I will come back to it.", "Perfect, simply superb."),
}
_LIKED = ("It gave me {x}, just what I love.", "The best of it is {x}.", "I came for {x} and got it.")
_DISLIKED = ("There was {x} in it, which I avoid.", "Too much about {x} for my taste.", "I never cared for {x}.")
_NEUTRAL = ("It is about {x}.", "You will find {x} here.", "Mostly {x}.")
_WISH = ("Now I want more of {x}.", "I wish it had more of {x}.", "Next I hope to find {x}.")


def reviews(events: Events, who: Readers, items: Catalogue, seed: int) -> pl.Series:
    """``[E]`` one review an event."""
    import polars as pl

    rng = np.random.default_rng([seed, 4])
    n = len(events.user_rows)
    user, item = events.user_rows.astype(np.int64), events.item_rows.astype(np.int64)
    # words follow the stars as people's do: now and then a neighbour's words
    stars = np.clip(np.rint(events.ratings + rng.normal(0, 0.4, n)), 1, 5).astype(np.int64)
    theme, liking = _telling_theme(user, item, who, items, rng)
    # the wish names one of the two themes the reader states, or any loved one: the same reader, the same wants
    loved = np.argsort(-who.taste[:, :-1] + rng.random((len(who), len(THEMES))) * 0.5, axis=1)[:, :3]
    wish = loved[user, rng.integers(3, size=n)]
    asked = pl.Series([phrase for phrase, _ in THEMES.values()])
    word = pl.Series(list(_DISLIKED + _NEUTRAL + _LIKED)).gather((liking + 1) * 3 + rng.integers(3, size=n))
    opening = pl.Series([text for star in sorted(OPENINGS) for text in OPENINGS[star]])
    parts = pl.DataFrame(
        {
            "opening": opening.gather((stars - 1) * 4 + rng.integers(4, size=n)),
            "word": word,
            "x": asked.gather(theme),
            "wish": pl.Series(_WISH).gather(rng.integers(3, size=n)),
            "w": asked.gather(wish),
            "wishes": rng.random(n) < 0.6,
        }
    )
    told = pl.col("word").str.replace("{x}", pl.col("x"), literal=True)
    wished = pl.concat_str(pl.lit(" "), pl.col("wish").str.replace("{x}", pl.col("w"), literal=True))
    tail = pl.when("wishes").then(wished).otherwise(pl.lit(""))
    return parts.select(pl.concat_str("opening", pl.lit(" "), told, tail).alias("review")).to_series()


def _telling_theme(
    user: Rows, item: Rows, who: Readers, items: Catalogue, rng: np.random.Generator
) -> tuple[Rows, Rows]:
    """The theme of the item the reader has most to say about ``[E]``, and what they feel about it: -1, 0 or 1."""
    best = np.zeros(len(user), dtype=np.int64)
    telling = np.full(len(user), -1.0)
    for slot in range(SLOTS):
        theme = items.theme_slots[item, slot].astype(np.int64)
        weight = np.abs(who.taste[user, theme]) + rng.random(len(user)) * 0.5
        weight[theme == len(THEMES)] = -1.0
        best, telling = np.where(weight > telling, theme, best), np.maximum(weight, telling)
    return best, who.taste[user, best].astype(np.int64)
