"""The annotator that needs no model: key phrases and words of feeling put into templates.

It stands in for a language model that reads reviews and titles (the intentions and preferences of LC-Rec, Zheng et
al. 2024, arXiv 2311.09049). It repeats what texts say and concludes nothing; every record is labelled ``extractive``.
An intention comes from the review of one event: what its author praises or wishes for, and what is blamed; what the
item is like comes from the item's text and what the review praises. A preference comes from the texts of the items of
a history. Titles are never said. An event without a review gets empty lines, as does a history of items without words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from pydantic import Field

from palate.annotation.key_phrases import KeyPhrases, apart, candidates, feeling, listed, sentences, wishful
from palate.core import store
from palate.core.annotations import Intention, ItemProfile, Preference, UserProfile
from palate.core.config import Config, configure
from palate.core.dataset import Dataset
from palate.core.ragged import IntArray, Ragged

WISHES = ("Looks for {}.", "Would like {}.", "Wants {}.", "Is in the mood for {}.")
DISLIKES = (" Not {}.", " Dislikes {}.", " Without {}.")
TRAITS = ("Offers {}.", "It is about {}.", "Known for {}.", "Has {}.")
BRIEF = ("Enjoys {}.", "Likes {}.", "Prefers {}.")
LONG_TERM = ("Over time mostly {}.", "Always comes back to {}.", "For long fond of {}.")
SHORT_TERM = ("Lately {}.", "Of late more {}.", "At the moment {}.")
READERS = ("For people who enjoy {}.", "Whoever likes {} will like it.", "Suits whoever looks for {}.")
REASONS = ("Its text speaks of {}.",)
"""One is taken for each record, in turn."""


class ExtractiveConfig(Config):
    phrases: int = Field(3, ge=1)
    """A line names so many at most."""
    longest: int = Field(3, ge=1)
    """Words of a phrase."""
    recent: int = Field(5, ge=1)
    """Events that make up the short term."""


class Extractive:
    """The annotator. It learns nothing and keeps nothing."""

    config_type = ExtractiveConfig
    label = "extractive"

    def __init__(self, config: ExtractiveConfig | None = None) -> None:
        self.config = config or ExtractiveConfig()

    def intentions(self, train: Dataset, events: IntArray) -> list[Intention]:
        """One record an event; its lines are empty where nobody wrote a review."""
        events = np.asarray(events, dtype=np.int64)
        items = train.item_rows[events].astype(np.int64)
        reviews = _reviews(train, events)
        about = self._about(train)
        of_item = dict(zip(np.unique(items).tolist(), self._best_of(about, np.unique(items)), strict=True))
        titles, known = _titles(train), set(about.phrases)
        records = []
        for event, item, review in zip(events.tolist(), items.tolist(), reviews, strict=True):
            said = self._said(review, titles[item], known)
            wish, traits = self._lines(event, said, of_item[item]) if review else ("", "")
            records.append(Intention(event, int(train.user_rows[event]), item, wish, traits, self.label))
        return records

    def preferences(self, train: Dataset, histories: Ragged) -> list[Preference]:
        """One record a history; lines are empty where its items have no words."""
        n, about = self.config.phrases, self._about(train)

        def best(events: Ragged) -> list[list[str]]:
            return about.best(Ragged.from_lengths(train.item_rows[events.flat()], events.lengths), n)

        users = train.user_rows[histories.values[histories.starts]] if len(histories) else []
        whole, recent = best(histories), best(histories.last(self.config.recent))
        return [
            Preference(
                int(user), _line(BRIEF, place, some), _line(LONG_TERM, place, some), _line(SHORT_TERM, place, few),
                self.label,
            )
            for place, (user, some, few) in enumerate(zip(users, whole, recent, strict=True))
        ]  # fmt: skip

    def item_profiles(self, train: Dataset, item_rows: IntArray) -> list[ItemProfile]:
        """One record an item; empty where its text has no phrases. The reasons are the phrases themselves."""
        items = np.asarray(item_rows, dtype=np.int64)
        best = self._best_of(self._about(train), items)
        return [
            ItemProfile(item, _line(READERS, item, some), _line(REASONS, 0, some), self.label)
            for item, some in zip(items.tolist(), best, strict=True)
        ]

    def user_profiles(self, train: Dataset, histories: Ragged) -> list[UserProfile]:
        """One record a history, from what its preference says."""
        return [
            UserProfile(one.user_row, " ".join(filter(None, (one.brief, one.short_term))), one.long_term, self.label)
            for one in self.preferences(train, histories)
        ]

    def _about(self, train: Dataset) -> KeyPhrases:
        """The phrases of every item's text, its title left out, and its categories."""
        texts, categories, titles = _texts(train.items), _categories(train.items), _titles(train)
        return KeyPhrases.of(
            [
                [*_untitled(candidates(text, self.config.longest), title), *named]
                for text, named, title in zip(texts, categories, titles, strict=True)
            ]
        )

    def _best_of(self, about: KeyPhrases, items: IntArray) -> list[list[str]]:
        return about.best(Ragged.from_lengths(items, np.ones(len(items), dtype=np.int64)), self.config.phrases)

    def _said(self, review: str, title: str, known: set[str]) -> tuple[list[str], ...]:
        """What a review wishes for, praises (or says without feeling) and blames, in its own order. Phrases that
        items are described with are preferred to idle talk."""
        wished: list[str] = []
        praised: list[str] = []
        blamed: list[str] = []
        overall = feeling(review)
        for sentence in sentences(review):
            mood = feeling(sentence) or overall
            kind = wished if wishful(sentence) else blamed if mood < 0 else praised
            kind += _untitled(candidates(sentence, self.config.longest), title)
        grounded = [[phrase for phrase in kind if phrase in known] for kind in (wished, praised, blamed)]
        if not (grounded[0] or grounded[1]):
            return wished, praised, blamed
        return tuple(grounded)

    def _lines(self, event: int, said: tuple[list[str], ...], traits: Sequence[str]) -> tuple[str, str]:
        wished, praised, blamed = said
        n = self.config.phrases
        wanted = apart((*wished, *praised), n)
        unwanted = [phrase for phrase in apart(blamed, n) if phrase not in wanted][:1]
        wish = _line(WISHES, event, wanted)
        if wish:
            wish += _line(DISLIKES, event, unwanted)
        return wish, _line(TRAITS, event, apart((*praised[:1], *traits), n))

    def save(self, folder: Path) -> None:
        store.save(folder, self, config=self.config)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls(configure(cls.config_type, store.open_folder(folder).config))


def _line(templates: Sequence[str], turn: int, phrases: Sequence[str]) -> str:
    """A template filled in; "" where there is nothing to say."""
    return templates[turn % len(templates)].format(listed(phrases)) if phrases else ""


def _untitled(phrases: Iterable[str], title: str) -> list[str]:
    """Those that do not stand in the title."""
    return [phrase for phrase in phrases if f" {phrase} " not in title]


def _titles(train: Dataset) -> list[str]:
    """``[N]`` in lower case, words parted by one space, with a space on both ends."""
    if "title" not in train.items.columns:
        return [""] * train.n_items
    column = pl.col("title").cast(pl.String).fill_null("").str.to_lowercase().str.replace_all(r"[^\w'’-]+", " ")
    return train.items.select(pl.concat_str(pl.lit(" "), column, pl.lit(" ")).alias("title"))["title"].to_list()


def _texts(items: pl.DataFrame) -> list[str]:
    if "text" not in items.columns:
        return [""] * items.height
    return items["text"].cast(pl.String).fill_null("").to_list()


def _categories(items: pl.DataFrame) -> list[list[str]]:
    """The categories of each item as phrases."""
    if "category" not in items.columns:
        return [[]] * items.height
    column = items["category"]
    lists = [[one] if isinstance(one, str) else (one or []) for one in column.to_list()]
    return [[str(one).strip().lower() for one in entries if one and str(one).strip()] for entries in lists]


def _reviews(train: Dataset, events: IntArray) -> list[str]:
    if "review" not in train.interactions.columns:
        return [""] * len(events)
    return train.interactions["review"].gather(events).cast(pl.String).fill_null("").str.strip_chars().to_list()
