"""The annotator that needs no model: key phrases and words of feeling put into templates.

It stands in for a language model that reads reviews and titles (the intentions and preferences of LC-Rec, Zheng et
al. 2024, arXiv 2311.09049). It repeats what texts say and concludes nothing; every record is labelled ``extractive``.
An intention comes from the review of one event: what its author praises or wishes for, and what is blamed; what the
item is like comes from the item's text and what the review praises. A preference comes from the texts of the items of
a history. Titles are never said. An event without a review gets empty lines, as does a history of items without words.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from palate.annotation import attributes, choices, profiles, steps
from palate.annotation.item_words import Said, phrases_of_items, reviews, said, titles
from palate.annotation.key_phrases import KeyPhrases, apart, listed
from palate.core import store
from palate.core.annotations import (
    Choice,
    Intention,
    ItemAttributes,
    ItemProfile,
    Preference,
    StepPreferences,
    UserProfile,
    UserTraits,
)
from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.ragged import IntArray, Ragged

WISHES = ("Looks for {}.", "Would like {}.", "Wants {}.", "Is in the mood for {}.")
DISLIKES = (" Not {}.", " Dislikes {}.", " Without {}.")
TRAITS = ("Offers {}.", "It is about {}.", "Known for {}.", "Has {}.")
BRIEF = ("Enjoys {}.", "Likes {}.", "Prefers {}.")
LONG_TERM = ("Over time mostly {}.", "Always comes back to {}.", "For long fond of {}.")
SHORT_TERM = ("Lately {}.", "Of late more {}.", "At the moment {}.")
"""One is taken for each record, in turn."""


class ExtractiveConfig(Config):
    phrases: int = Field(3, ge=1)
    """A line names so many at most."""
    longest: int = Field(3, ge=1)
    """Words of a phrase."""
    recent: int = Field(5, ge=1)
    """Events that make up the short term."""
    profile_phrases: int = Field(8, ge=1)
    """A profile names so many at most."""
    sampled: int = Field(20, ge=1)
    """Events of a user that a profile is written from, drawn evenly."""


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
        written = reviews(train, events)
        about = phrases_of_items(train, self.config.longest)
        of_item = dict(zip(np.unique(items).tolist(), self._best_of(about, np.unique(items)), strict=True))
        named, known = titles(train), set(about.phrases)
        records = []
        for event, item, review in zip(events.tolist(), items.tolist(), written, strict=True):
            told = said(review, named[item], known, self.config.longest)
            wish, traits = self._lines(event, told, of_item[item]) if review else ("", "")
            records.append(Intention(event, int(train.user_rows[event]), item, wish, traits, self.label))
        return records

    def preferences(self, train: Dataset, histories: Ragged) -> list[Preference]:
        """One record a history; lines are empty where its items have no words."""
        n, about = self.config.phrases, phrases_of_items(train, self.config.longest)

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

    def step_preferences(self, dataset: Dataset, events: IntArray) -> list[StepPreferences]:
        """One record an event, from it and the few before it."""
        return steps.of_events(dataset, events, longest=self.config.longest)

    def item_profiles(self, train: Dataset, items: IntArray) -> list[ItemProfile]:
        """One record an item."""
        return profiles.of_items(train, items, n=self.config.profile_phrases, longest=self.config.longest)

    def user_profiles(self, train: Dataset, users: IntArray, of_items: Sequence[ItemProfile]) -> list[UserProfile]:
        """One record a user, from the profiles of all items."""
        config = self.config
        return profiles.of_users(
            train, users, of_items, n=config.profile_phrases, longest=config.longest, sampled=config.sampled
        )

    def item_attributes(self, train: Dataset, items: IntArray, names: Sequence[str]) -> list[ItemAttributes]:
        """One record an item: columns of the item table, and phrases of its text as ``themes``."""
        return attributes.of_items(train, items, names, n=self.config.phrases, longest=self.config.longest)

    def user_traits(self, train: Dataset, users: IntArray, names: Sequence[str]) -> list[UserTraits]:
        """One record a user; ``names`` are ``liked X`` and ``disliked X`` of attributes X of items."""
        config, of_items = self.config, self.item_profiles(train, np.arange(train.n_items))
        return attributes.of_users(
            train, users, names, of_items, n=config.phrases, longest=config.longest, sampled=config.sampled
        )

    def choices(self, train: Dataset, users: IntArray, offered: IntArray) -> list[Choice]:
        """One record a user, among the items ``offered`` ``[n, C]``."""
        config, of_items = self.config, self.item_profiles(train, np.arange(train.n_items))
        return choices.of_users(train, users, offered, of_items, longest=config.longest, sampled=config.sampled)

    def _best_of(self, about: KeyPhrases, items: IntArray) -> list[list[str]]:
        return about.best(Ragged.from_lengths(items, np.ones(len(items), dtype=np.int64)), self.config.phrases)

    def _lines(self, event: int, told: Said, traits: Sequence[str]) -> tuple[str, str]:
        wished, praised, blamed = told
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
        return store.open_folder(folder).begun(cls)


def _line(templates: Sequence[str], turn: int, phrases: Sequence[str]) -> str:
    """A template filled in; "" where there is nothing to say."""
    return templates[turn % len(templates)].format(listed(phrases)) if phrases else ""
