"""What data say in words: titles, texts, categories, reviews, and the phrases in them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import polars as pl

from palate.annotation.key_phrases import KeyPhrases, candidates, feeling, sentences, wishful
from palate.core.dataset import Dataset
from palate.core.ragged import IntArray

Said = tuple[list[str], list[str], list[str]]
"""What a review wishes for, praises (or says without feeling) and blames."""


def phrases_of_items(train: Dataset, longest: int) -> KeyPhrases:
    """The phrases of every item's text, its title left out, and its categories."""
    return KeyPhrases.of(
        [
            [*untitled(candidates(text, longest), title), *named]
            for text, named, title in zip(texts(train.items), categories(train.items), titles(train), strict=True)
        ]
    )


def said(review: str, title: str, known: set[str], longest: int) -> Said:
    """What a review says, in its own order. Phrases that items are described with are preferred to idle talk."""
    wished: list[str] = []
    praised: list[str] = []
    blamed: list[str] = []
    for sentence in sentences(review):
        mood, wishes, phrases = _read(sentence, longest)
        kind = wished if wishes else blamed if (mood or feeling(review)) < 0 else praised
        kind += untitled(phrases, title)
    grounded = [[phrase for phrase in kind if phrase in known] for kind in (wished, praised, blamed)]
    if not (grounded[0] or grounded[1]):
        return wished, praised, blamed
    return grounded[0], grounded[1], grounded[2]


@lru_cache(maxsize=2**15)  # people say the same sentences again and again
def _read(sentence: str, longest: int) -> tuple[int, bool, tuple[str, ...]]:
    """How a sentence feels, whether it wishes, and its phrases."""
    return feeling(sentence), wishful(sentence), tuple(candidates(sentence, longest))


def untitled(phrases: Iterable[str], title: str) -> list[str]:
    """Those that do not stand in the title."""
    return [phrase for phrase in phrases if f" {phrase} " not in title]


def titles(train: Dataset) -> list[str]:
    """``[N]`` in lower case, words parted by one space, with a space on both ends."""
    if "title" not in train.items.columns:
        return [""] * train.n_items
    column = pl.col("title").cast(pl.String).fill_null("").str.to_lowercase().str.replace_all(r"[^\w'’-]+", " ")
    return train.items.select(pl.concat_str(pl.lit(" "), column, pl.lit(" ")).alias("title"))["title"].to_list()


def texts(items: pl.DataFrame) -> list[str]:
    """``[N]`` the descriptions; "" where there is none."""
    if "text" not in items.columns:
        return [""] * items.height
    return items["text"].cast(pl.String).fill_null("").to_list()


def categories(items: pl.DataFrame) -> list[list[str]]:
    """The categories of each item as phrases."""
    if "category" not in items.columns:
        return [[]] * items.height
    column = items["category"]
    lists = [[one] if isinstance(one, str) else (one or []) for one in column.to_list()]
    return [[str(one).strip().lower() for one in entries if one and str(one).strip()] for entries in lists]


def reviews(train: Dataset, events: IntArray) -> list[str]:
    """``[n]`` the review of each event; "" where there is none."""
    if "review" not in train.interactions.columns:
        return [""] * len(events)
    return train.interactions["review"].gather(events).cast(pl.String).fill_null("").str.strip_chars().to_list()
