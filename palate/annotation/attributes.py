"""Attributes of items and traits of users by rules alone: columns of the tables, and key phrases for ``themes``.

They stand in for the side information that LLMRec (Wei et al. 2024, arXiv 2311.00423) asks a chat model for. Nothing
is guessed: an attribute that no column holds and no text tells is empty. A trait is ``liked X`` or ``disliked X``,
where X is an attribute. Shapes: n records, E events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from palate.annotation.item_words import phrases_of_items
from palate.annotation.key_phrases import apart
from palate.annotation.profiles import AUTHOR, phrase_scores, sampled_events, shared_first
from palate.core.annotations import ItemAttributes, ItemProfile, UserTraits
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError
from palate.core.ragged import IntArray

THEMES = "themes"
"""The attribute that is read from texts."""
LIKED, DISLIKED = "liked ", "disliked "
GOOD, BAD = 4.0, 2.0
"""Stars from which on an item was liked, and up to which it was not; without stars everything met was liked."""


def of_items(
    train: Dataset, items: IntArray, names: Sequence[str], *, n: int, longest: int
) -> list[ItemAttributes]:  # fmt: skip
    """One record for each of ``items``; ``n`` phrases make its themes."""
    columns = [_column(train, items, name, n, longest) for name in names]
    rows = zip(*columns, strict=True) if columns else (() for _ in items)
    return [ItemAttributes(int(item), tuple(row), AUTHOR) for item, row in zip(items, rows, strict=True)]


def _column(train: Dataset, items: IntArray, name: str, n: int, longest: int) -> list[str]:
    """The values of one attribute."""
    if name != THEMES:
        values = _values(train, name)
        return [", ".join(values[item]) for item in np.asarray(items).tolist()]
    about = phrases_of_items(train, longest)
    shared = np.bincount(about.held.flat(), minlength=len(about.phrases)) > 1
    rows = (about.held.row(item) for item in np.asarray(items).tolist())
    return [", ".join(shared_first(about, row, shared, n)) for row in rows]


def _values(train: Dataset, name: str) -> list[list[str]]:
    """``[N]`` what a column of the item table says of each item; nothing where there is no such column."""
    if name not in train.items.columns:
        return [[] for _ in range(train.n_items)]
    found = []
    for value in train.items[name].to_list():
        entries = value if isinstance(value, list) else [value]
        found.append([" ".join(str(entry).split()) for entry in entries if entry is not None and str(entry).strip()])
    return found


def of_users(
    train: Dataset, users: IntArray, names: Sequence[str], of_items_: Sequence[ItemProfile], *,
    n: int, longest: int, sampled: int,
) -> list[UserTraits]:  # fmt: skip
    """One record for each of ``users``, from at most ``sampled`` events; a trait names the ``n`` values said most."""
    for name in names:
        if not name.startswith((LIKED, DISLIKED)):
            raise ConfigError(
                f"rules can write traits 'liked …' and 'disliked …', not '{name}'; name another annotator"
            )
    users = np.asarray(users, dtype=np.int64)
    events = sampled_events(train, users, sampled)
    items, mood = train.item_rows[events.flat()], _moods(train, events.flat())
    columns = []
    for name in names:
        liked, about = name.startswith(LIKED), name.removeprefix(LIKED).removeprefix(DISLIKED)
        if about == THEMES:
            phrases, scores = phrase_scores(train, events, of_items_, longest)
            columns.append([_themes(phrases, counts, n, liked) for counts in scores])
            continue
        values, sign = _values(train, about), 1 if liked else -1
        said: list[Counter[str]] = [Counter() for _ in range(len(events))]
        for owner, item in zip(events.row_numbers()[mood == sign].tolist(), items[mood == sign].tolist(), strict=True):
            said[owner].update(values[item])
        columns.append([", ".join(_most(counts, n)) for counts in said])
    rows = zip(*columns, strict=True) if columns else (() for _ in users)
    return [UserTraits(user, tuple(row), AUTHOR) for user, row in zip(users.tolist(), rows, strict=True)]


def _moods(train: Dataset, events: IntArray) -> IntArray:
    """``[n]`` 1 = liked, -1 = disliked, 0 = neither."""
    if "rating" not in train.interactions.columns:
        return np.ones(len(events), dtype=np.int64)
    stars = train.interactions["rating"].gather(events).fill_null(GOOD).to_numpy()
    return (stars >= GOOD).astype(np.int64) - (stars <= BAD)


def _most(counts: Counter[str], n: int) -> list[str]:
    return [value for value, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:n]]


def _themes(phrases: Sequence[str], counts: dict[int, float], n: int, liked: bool) -> str:
    sign = 1 if liked else -1
    order = sorted(counts, key=lambda place: (-sign * counts[place], place))
    return ", ".join(apart((phrases[place] for place in order if sign * counts[place] > 0), n))
