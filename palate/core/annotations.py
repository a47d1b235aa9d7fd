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
class ItemProfile:
    """Who would enjoy an item and what it is like, in a few sentences; empty where nothing is known.

    reasons  what of the item's texts and reviews says so
    """

    item_row: int
    profile: str
    reasons: str
    author: str


@dataclass(frozen=True)
class UserProfile:
    """What a user enjoys, in a few sentences, and what of their events says so; empty where nothing is known."""

    user_row: int
    profile: str
    reasons: str
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
