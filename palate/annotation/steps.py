"""What a user would search for after each event, by rules alone: five sentences from the newest items and reviews.

They stand in for the instructions that Mender (Paischer et al. 2025, arXiv 2412.08604) asks a chat model for, and keep
its contract: exactly five short sentences after each event, likes and dislikes, none of one word, none that names an
item or a brand of those that were read. What is read is the event and at most four before it. Shapes: n events.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from palate.annotation.item_words import Said, phrases_of_items, reviews, said, titles
from palate.annotation.key_phrases import apart
from palate.annotation.profiles import AUTHOR, shared_first
from palate.core.annotations import SENTENCES, StepPreferences
from palate.core.dataset import Dataset
from palate.core.ragged import IntArray, Ragged

WINDOW = 5
"""Events that are read, the present one among them."""
WANTED = ("Find {}.", "Search for {}.", "Look for {}.", "Show me {}.", "More of {}, please.")
UNWANTED = ("Avoid {}.", "No {}.", "Exclude {}.")
BOTH = "Find {} together with {}."
AGAINST = 2
"""Of the sentences so many at most say what to keep away."""
SHORT = 4
"""A title with fewer letters is a word like any other."""


def window(dataset: Dataset, events: IntArray) -> Ragged:
    """Positions of what is read for each of ``events``: it and those before it of the same user, oldest first."""
    events = np.asarray(events, dtype=np.int64)
    first = dataset.histories.starts[dataset.user_rows[events]]
    return Ragged(np.arange(dataset.n_interactions), np.maximum(first, events - WINDOW + 1), events + 1)


def names_read(dataset: Dataset, read: Ragged) -> list[set[str]]:
    """``[n]`` the titles and brands that the sentences of each row must not say, in lower case."""
    named = [" ".join(title.split()) for title in titles(dataset)]
    brands = [""] * dataset.n_items
    if "brand" in dataset.items.columns:
        brands = [_plain(str(brand or "")) for brand in dataset.items["brand"].to_list()]
    found = []
    for row in read:
        items = dataset.item_rows[row].tolist()
        found.append({named[i] for i in items if len(named[i]) >= SHORT} | {brands[i] for i in items if brands[i]})
    return found


def kept(sentences: Iterable[str], names: set[str]) -> tuple[str, ...]:
    """The first ``SENTENCES`` that keep the contract, each once; none where there are fewer."""
    good: dict[str, str] = {}
    for sentence in sentences:
        line = " ".join(sentence.split())
        plain = f" {_plain(line)} "
        if len(plain.split()) > 1 and not any(f" {name} " in plain for name in names):
            good.setdefault(plain, line)
    return tuple(good.values())[:SENTENCES] if len(good) >= SENTENCES else ()


def of_events(dataset: Dataset, events: IntArray, *, longest: int) -> list[StepPreferences]:
    """One record for each of ``events``."""
    events = np.asarray(events, dtype=np.int64)
    read, about, named = window(dataset, events), phrases_of_items(dataset, longest), titles(dataset)
    known, needed = set(about.phrases), np.unique(read.flat())
    told: dict[int, Said] = {
        event: said(review, named[dataset.item_rows[event]], known, longest)
        for event, review in zip(needed.tolist(), reviews(dataset, needed), strict=True)
    }
    shared = np.bincount(about.held.flat(), minlength=len(about.phrases)) > 1
    traits = {
        item: shared_first(about, about.held.row(item), shared, SENTENCES)
        for item in np.unique(dataset.item_rows[needed]).tolist()
    }
    records = []
    # Wordings alternate by the place of an event in its own history: who else is in the table must not change them.
    turns = (events - dataset.histories.starts[dataset.user_rows[events]]).tolist()
    for event, turn, row, names in zip(events.tolist(), turns, read, names_read(dataset, read), strict=True):
        newest = row[::-1].tolist()
        likes = [traits[int(dataset.item_rows[one])] for one in newest if len(told[one][1]) >= len(told[one][2])]
        sentences = _sentences([told[one] for one in newest], [phrase for some in likes for phrase in some], turn)
        records.append(
            StepPreferences(event, int(dataset.user_rows[event]), kept(sentences, names), AUTHOR)
        )  # fmt: skip
    return records


def _sentences(told: Sequence[Said], traits: Sequence[str], turn: int) -> list[str]:
    """Wishes and praise of the newest reviews, blame, then what the items are like that nobody complained of; ``told``
    has the newest first."""
    mood: dict[str, bool] = {}  # the newest that was said of a phrase counts
    for wished, praised, blamed in told:
        for phrases, good in (((*wished, *praised), True), (blamed, False)):
            for phrase in phrases:
                mood.setdefault(phrase, good)
    for phrase in traits:
        mood.setdefault(phrase, True)
    wanted = apart((phrase for phrase, good in mood.items() if good), SENTENCES)
    unwanted = apart((phrase for phrase, good in mood.items() if not good), AGAINST)
    room = SENTENCES - len(unwanted)
    found = [WANTED[(turn + place) % len(WANTED)].format(phrase) for place, phrase in enumerate(wanted[:room])]
    found += [UNWANTED[(turn + place) % len(UNWANTED)].format(phrase) for place, phrase in enumerate(unwanted)]
    found += [WANTED[(turn + place) % len(WANTED)].format(phrase) for place, phrase in enumerate(wanted[room:], room)]
    found += [BOTH.format(a, b) for place, a in enumerate(wanted) for b in wanted[place + 1 :]]
    return found


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w'’-]+", " ", text.lower()).split())
