"""What somebody wrote about events and users: typed records, each with its author."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Intention:
    """Why a user met an item. A line of which nothing is known is empty.

    event   position in the interactions that were read
    wish    one line: what the user looks for
    traits  one line: what the item is like, its title unsaid
    author  the annotator's label, such as ``extractive`` or a model's name
    """

    event: int
    user_row: int
    item_row: int
    wish: str
    traits: str
    author: str


@dataclass(frozen=True)
class Preference:
    """What a user likes. A line of which nothing is known is empty.

    brief       one line on everything that was read
    long_term   one line on what lasts
    short_term  one line on the last events
    author      the annotator's label
    """

    user_row: int
    brief: str
    long_term: str
    short_term: str
    author: str


@dataclass(frozen=True)
class StepPreferences:
    """What a user would search for and what to keep away, as it stood after one event (Mender).

    event      position of that event in the interactions; it and the few before it were read
    sentences  exactly ``SENTENCES`` short ones, none of a single word, none that names an item or a brand that was
               read; none at all where so many could not be written
    author     the annotator's label
    """

    event: int
    user_row: int
    sentences: tuple[str, ...]
    author: str


SENTENCES = 5
"""Of each ``StepPreferences``."""


@dataclass(frozen=True)
class ItemProfile:
    """What kind of user would like an item (RLMRec). Of an item of which nothing is known both texts are empty.

    summarization  at most 200 words; what is encoded
    reasoning      at most 200 words: how the summary was reached
    author         the annotator's label
    """

    item_row: int
    summarization: str
    reasoning: str
    author: str


@dataclass(frozen=True)
class UserProfile:
    """What kind of item a user would like (RLMRec). Of a user of whom nothing is known both texts are empty.

    summarization  at most 100 words; what is encoded
    reasoning      at most 100 words
    author         the annotator's label
    """

    user_row: int
    summarization: str
    reasoning: str
    author: str


ATTRIBUTES = ("category", "author", "themes")
TRAITS = ("liked category", "disliked category", "liked themes", "disliked themes", "liked author")
"""What is asked of items and of users unless others are named. Neither age nor gender."""


@dataclass(frozen=True)
class ItemAttributes:
    """What an item is, attribute by attribute (LLMRec). ``values`` follow the names that were asked for; an attribute
    of which nothing is known is empty."""

    item_row: int
    values: tuple[str, ...]
    author: str


@dataclass(frozen=True)
class UserTraits:
    """What a user is and likes, trait by trait (LLMRec). ``values`` follow the names that were asked for; a trait of
    which nothing is known is empty."""

    user_row: int
    values: tuple[str, ...]
    author: str


@dataclass(frozen=True)
class Choice:
    """The item that a user would like most among some candidates, and the one liked least (LLMRec); item rows, -1 where
    the answer could not be read."""

    user_row: int
    liked: int
    disliked: int
    author: str
