"""Choices among candidates: read from what a chat model answers, or made by rules.

They are the edges that LLMRec (Wei et al. 2024, arXiv 2311.00423) adds: of some candidates of each user one that would
be liked most and one that would be liked least. Shapes: n users, C candidates of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from palate.annotation.key_phrases import KeyPhrases
from palate.annotation.profiles import AUTHOR, phrase_scores, phrases_of, sampled_events
from palate.core.annotations import Choice, ItemProfile
from palate.core.dataset import Dataset
from palate.core.ragged import IntArray

NOBODY = (-1, -1)


def chosen(said: Mapping[str, Any], offered: Sequence[int]) -> tuple[int, int]:
    """``best`` and ``worst``, two places among ``offered`` → their item rows. Nothing said, a place that was not
    offered, the same one twice: (-1, -1)."""
    best, worst = said.get("best", -1), said.get("worst", -1)
    if best == worst or not (0 <= best < len(offered) and 0 <= worst < len(offered)):
        return NOBODY
    return int(offered[best]), int(offered[worst])


def of_users(
    train: Dataset, users: IntArray, offered: IntArray, of_items: Sequence[ItemProfile], *, longest: int, sampled: int
) -> list[Choice]:
    """One record for each of ``users`` ``[n]`` among ``offered`` ``[n, C]`` (-1 = no more): the candidate whose phrases
    count most for the user, and the one whose count least. Of equals the earlier is liked, the later is not."""
    events = sampled_events(train, np.asarray(users, dtype=np.int64), sampled)
    _, scores = phrase_scores(train, events, of_items, longest)
    about = KeyPhrases.of([phrases_of(profile, longest) for profile in of_items])
    records = []
    for user, row, counts in zip(np.asarray(users).tolist(), offered.tolist(), scores, strict=True):
        rows = [item for item in row if item >= 0]
        likes = [sum(counts.get(place, 0.0) for place in about.held.row(item).tolist()) for item in rows]
        best = int(np.argmax(likes)) if rows else 0
        worst = len(rows) - 1 - int(np.argmin(likes[::-1])) if rows else 0
        liked, disliked = NOBODY if best == worst else (rows[best], rows[worst])
        records.append(Choice(user, liked, disliked, AUTHOR))
    return records
