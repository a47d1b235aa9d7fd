"""Profiles of items and users by rules alone: who would like an item, what a user would like.

They stand in for the profiles that RLMRec (Ren et al. 2024, arXiv 2310.15950) asks a chat model for, in its order:
items first, from their texts, or from some reviews where there is no text; then users, from some of their events, of
which each gives the item's profile and the user's own review. Shapes: n records, E events.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from palate.annotation.item_words import phrases_of_items, reviews, said, titles, untitled
from palate.annotation.key_phrases import KeyPhrases, apart, candidates, listed
from palate.core.annotations import ItemProfile, UserProfile
from palate.core.dataset import Dataset
from palate.core.ragged import IntArray, Ragged

AUTHOR = "extractive"
REVIEWS = 10
"""Reviews read of an item without a text."""
WISHED, PRAISED, LIKED_ITEM = 2.0, 1.0, 0.5
"""What counts for a phrase: wished for in a review, said well of, written of an item that was liked. Blame takes away
as much as praise gives."""
ENJOY = "People who enjoy {} would like this."
LIKES, AVOIDS = "Enjoys {}.", " Would rather do without {}."


def of_items(train: Dataset, items: IntArray, *, n: int, longest: int) -> list[ItemProfile]:
    """One record for each of ``items``; it names the ``n`` phrases that say most, those that other items share first:
    they say whom else it is for."""
    items = np.asarray(items, dtype=np.int64)
    about = phrases_of_items(train, longest)
    shared = np.bincount(about.held.flat(), minlength=len(about.phrases)) > 1
    best = [shared_first(about, about.held.row(item), shared, n) for item in items.tolist()]
    mute = [place for place, phrases in enumerate(best) if not phrases]
    of_reviews = dict(zip(mute, _from_reviews(train, items[mute], n, longest), strict=True))
    records = []
    for place, (item, phrases) in enumerate(zip(items.tolist(), best, strict=True)):
        source = "Its text speaks of"
        if place in of_reviews:
            phrases, source = of_reviews[place], "Reviews of it speak of"
        summary = ENJOY.format(listed(phrases)) if phrases else ""
        records.append(ItemProfile(item, summary, f"{source} {listed(phrases)}." if phrases else "", AUTHOR))
    return records


def shared_first(about: KeyPhrases, held: IntArray, shared: np.ndarray, n: int) -> list[str]:
    """The rarest ``n`` of these phrases, shared ones before those that no other item has."""
    order = sorted(held.tolist(), key=lambda place: (not shared[place], -about.rarity[place], place))
    return apart((about.phrases[place] for place in order), n)


def phrases_of(profile: ItemProfile, longest: int) -> list[str]:
    """The phrases that a profile names: those of the list where it is our own sentence, whose other words say nothing
    of the item; else those of the whole text."""
    before, _, after = ENJOY.partition("{}")
    said = profile.summarization
    if not (said.startswith(before) and said.endswith(after)):
        return candidates(said, longest)
    *most, last = said[len(before) : -len(after)].split(", ")
    return [*most, *last.rsplit(" and ", 1)]


def _from_reviews(train: Dataset, items: IntArray, n: int, longest: int) -> list[list[str]]:
    """The phrases that some reviews of each of these items say most."""
    order = np.argsort(train.item_rows, kind="stable")
    bounds = np.searchsorted(train.item_rows[order], np.stack([items, items + 1]))
    rng = np.random.default_rng(0)
    named = titles(train)
    found: list[list[str]] = []
    for item, first, last in zip(items.tolist(), *bounds.tolist(), strict=True):
        events = np.sort(rng.permutation(order[first:last])[:REVIEWS])
        found.append([p for text in reviews(train, events) for p in untitled(candidates(text, longest), named[item])])
    return KeyPhrases.of(found).best(Ragged.of([[place] for place in range(len(items))]), n)


def of_users(
    train: Dataset, users: IntArray, of_items: Sequence[ItemProfile], *, n: int, longest: int, sampled: int
) -> list[UserProfile]:  # fmt: skip
    """One record for each of ``users``, from at most ``sampled`` of the user's events, drawn evenly.

    ``of_items`` are the profiles of all items, in the order of their rows.
    """
    users = np.asarray(users, dtype=np.int64)
    events = sampled_events(train, users, sampled)
    phrases, scores = phrase_scores(train, events, of_items, longest)
    ranked = _ranked(phrases, scores, n)
    records = []
    for user, (likes, avoids), n_read in zip(users.tolist(), ranked, events.lengths.tolist(), strict=True):
        if not likes:
            records.append(UserProfile(user, "", "", AUTHOR))
            continue
        summary = LIKES.format(listed(likes)) + (AVOIDS.format(listed(avoids)) if avoids else "")
        reason = f"{n_read} items and what was written about them name {listed(likes)} most."
        records.append(UserProfile(user, summary, reason, AUTHOR))
    return records


def sampled_events(train: Dataset, users: IntArray, sampled: int) -> Ragged:
    """Positions in the log of at most ``sampled`` events of each user, ascending."""
    offsets = np.searchsorted(train.user_rows, np.arange(train.n_users + 1))
    whole = Ragged(np.arange(train.n_interactions), offsets[users], offsets[users + 1])
    lot = np.random.default_rng(0).random(train.n_interactions)[whole.flat()]
    owner = whole.row_numbers()
    order = np.lexsort((lot, owner))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - whole.offsets()[owner[order]]
    return whole.where(place < sampled)


def phrase_scores(
    train: Dataset, events: Ragged, of_items: Sequence[ItemProfile], longest: int
) -> tuple[tuple[str, ...], list[dict[int, float]]]:
    """The phrases that items are described with, and how much each counts for each row of ``events``."""
    about = KeyPhrases.of([phrases_of(profile, longest) for profile in of_items])
    row = {phrase: place for place, phrase in enumerate(about.phrases)}
    known, named = set(row), titles(train)
    owners, flat = events.row_numbers(), events.flat()
    items = train.item_rows[flat]
    total: list[dict[int, float]] = [{} for _ in range(len(events))]
    for owner, item, review in zip(owners.tolist(), items.tolist(), reviews(train, flat), strict=True):
        counts = total[owner]
        wished, praised, blamed = said(review, named[item], known, longest)
        liked = len(praised) >= len(blamed)
        weighed = [
            (wished, WISHED), (praised, PRAISED), (blamed, -PRAISED),
            ((about.phrases[p] for p in about.held.row(item)), LIKED_ITEM if liked else -LIKED_ITEM),
        ]  # fmt: skip
        for phrases, weight in weighed:
            for phrase in phrases:
                place = row.get(phrase)
                if place is not None:
                    counts[place] = counts.get(place, 0.0) + weight * about.rarity[place]
    return about.phrases, total


def _ranked(phrases: tuple[str, ...], scores: list[dict[int, float]], n: int) -> list[tuple[list[str], list[str]]]:
    """The best ``n`` phrases of each, and at most two of the worst, where those count below zero."""
    ranked = []
    for counts in scores:
        order = sorted(counts, key=lambda place: (-counts[place], place))
        likes = apart((phrases[place] for place in order if counts[place] > 0), n)
        avoids = apart((phrases[place] for place in reversed(order) if counts[place] < 0), 2)
        ranked.append((likes, avoids))
    return ranked
