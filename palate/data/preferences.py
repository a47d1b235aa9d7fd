"""Sentences of what users would search for, event by event: which one goes with which item, and what steers to what.

The matching, the pairs that steer and the complaints are those of Mender (Paischer et al. 2025, arXiv 2412.08604);
training draws its examples from them and the benchmark its questions. Vectors are of unit length, so a product is a
cosine. Shapes: n records, S sentences, N items, B cases, M distinct targets, D width of the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.core.annotations import StepPreferences
from palate.core.dataset import Dataset
from palate.core.protocols import Discerner, FloatArray, Sentiment
from palate.core.ragged import IntArray, Ragged

OPPOSITE = {"avoid": "find", "exclude": "search for", "no": "search for"}
"""First words of a refusal, and of the wish that says the contrary."""
_CELLS = 1 << 22
_DRAWS = 8
"""Times that another history is drawn for a pair whose history holds the item it should lead to."""


def inverted(sentence: str) -> str | None:
    """``Avoid magic.`` → ``Find magic.``; None where the first word is none that can be turned round."""
    first, _, rest = sentence.strip().partition(" ")
    instead = OPPOSITE.get(first.lower())
    if instead is None or not rest:
        return None
    return f"{instead.capitalize() if first[0].isupper() else instead} {rest}"


@dataclass(frozen=True, eq=False)
class Preferences:
    """What an annotator wrote after some events.

    texts     ``[S]`` the sentences, each once, and after them what their refusals are turned into
    events    ``[n]`` positions in the interactions, ascending
    held      one row an event: its sentences; empty where there are none
    eligible  one row an event: those that may be matched with an item: the positive ones; where there is none, the
              refusals turned round; where there is none either, all
    opposite  ``[S]`` the sentence that says the contrary, -1 where the rule finds none
    n_written so many of the texts were written; the others were made by the rule
    """

    texts: tuple[str, ...]
    events: IntArray
    held: Ragged
    eligible: Ragged
    opposite: IntArray
    n_written: int

    @classmethod
    def of(cls, records: Sequence[StepPreferences], sentiment: Sentiment) -> Preferences:
        """``sentiment`` says which sentences are positive."""
        records = sorted(records, key=lambda record: record.event)
        written = list(dict.fromkeys(sentence for record in records for sentence in record.sentences))
        turned = [inverted(sentence) for sentence in written]
        row = {text: place for place, text in enumerate(dict.fromkeys([*written, *filter(None, turned)]))}
        opposite = np.full(len(row), -1, dtype=np.int64)
        opposite[: len(written)] = [-1 if text is None else row[text] for text in turned]
        positive = sentiment.positive(written) if written else np.zeros(0, dtype=bool)
        held = [[row[sentence] for sentence in record.sentences] for record in records]
        eligible = []
        for some in held:
            good = [place for place in some if positive[place]]
            eligible.append(good or [int(opposite[place]) for place in some if opposite[place] >= 0] or some)
        events = np.array([record.event for record in records], dtype=np.int64)
        return cls(tuple(row), events, Ragged.of(held), Ragged.of(eligible), opposite, len(written))

    def written_after(self, events: IntArray) -> IntArray:
        """``[m]`` the row of each event, -1 where nothing was written."""
        if not len(self.events):
            return np.full(len(events), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.events, events), len(self.events) - 1)
        found = (self.events[place] == events) & (self.held.lengths[place] > 0)
        return np.where(found, place, -1)

    def matched(self, rows: IntArray, sentences: FloatArray, wanted: FloatArray) -> IntArray:
        """``[m]`` of each row's eligible sentences the one nearest to ``wanted`` ``[m, D]``; -1 for row -1."""
        found = np.full(len(rows), -1, dtype=np.int64)
        known = np.flatnonzero(np.asarray(rows) >= 0)
        found[known] = nearest_of(self.eligible[np.asarray(rows)[known]], sentences, wanted[known])
        return found


def nearest_of(offered: Ragged, sentences: FloatArray, wanted: FloatArray) -> IntArray:
    """``[m]`` of each row's ``offered`` sentences the nearest to ``wanted`` ``[m, D]``, of equals the first; -1 where
    nothing is offered."""
    found = np.full(len(offered), -1, dtype=np.int64)
    width = max(int(offered.lengths.max(initial=1)) * sentences.shape[1], 1)
    step = max(1, _CELLS // width)
    for start in range(0, len(offered), step):
        some = offered[start : start + step]
        owner, flat = some.row_numbers(), some.flat().astype(np.int64)
        likeness = np.einsum("fd,fd->f", sentences[flat], wanted[start : start + step][owner])
        order = np.lexsort((np.arange(len(flat)), -likeness, owner))
        first = order[np.flatnonzero(np.diff(owner[order], prepend=-1))]
        found[start + owner[first]] = flat[first]
    return found


@dataclass(frozen=True, eq=False)
class Steering:
    """Pairs that must lead somewhere else than the history alone would.

    sentences  ``[m]`` rows of the texts
    cases      ``[m]`` whose history is read
    targets    ``[m]`` the items that the sentences should lead to
    others     ``[m]`` what really came after those histories
    n_dropped  pairs for which no history without the target was drawn
    """

    sentences: IntArray
    cases: IntArray
    targets: IntArray
    others: IntArray
    n_dropped: int


def steering(
    targets: IntArray, histories: Ragged, items: FloatArray, sentences: FloatArray, *, farthest: bool,
    places: tuple[int, int], seed: int,
) -> Steering:  # fmt: skip
    """For each distinct target i of the cases: i', the nearest or the ``farthest`` other target; the sentence at
    ``places[0]`` (0 = the nearest) to i with the history of a case whose target is i', to lead to i; and the sentence
    at ``places[1]`` to i' with the history of a case of i, to lead to i'. Cases are drawn by ``seed``; a history that
    holds what it should lead to is drawn anew, and in the end dropped."""
    here = np.unique(targets)
    if len(here) < 2 or not len(sentences):
        nothing = np.zeros(0, dtype=np.int64)
        return Steering(nothing, nothing, nothing, nothing, 0)
    other = here[_other(items[here], farthest)]
    said = np.concatenate([_at(items[here], sentences, places[0]), _at(items[other], sentences, places[1])])
    wanted, read = np.concatenate([here, other]), np.concatenate([other, here])
    cases = _drawn(np.asarray(targets), histories, read, wanted, np.random.default_rng([seed, int(farthest)]))
    good = cases >= 0
    return Steering(said[good], cases[good], wanted[good], read[good], int((~good).sum()))


def _other(vectors: FloatArray, farthest: bool) -> IntArray:
    """``[M]`` the nearest, or the farthest, of the other rows."""
    found = np.empty(len(vectors), dtype=np.int64)
    step = max(1, _CELLS // len(vectors))
    for start in range(0, len(vectors), step):
        likeness = vectors[start : start + step] @ vectors.T
        rows = np.arange(len(likeness))
        likeness[rows, start + rows] = np.inf if farthest else -np.inf
        found[start + rows] = likeness.argmin(1) if farthest else likeness.argmax(1)
    return found


def _at(wanted: FloatArray, sentences: FloatArray, place: int) -> IntArray:
    """``[M]`` the sentence at this place, 0 = the nearest; the last where there are fewer."""
    place = min(place, len(sentences) - 1)
    found = np.empty(len(wanted), dtype=np.int64)
    step = max(1, _CELLS // len(sentences))
    for start in range(0, len(wanted), step):
        likeness = -(wanted[start : start + step] @ sentences.T)
        few = np.sort(np.argpartition(likeness, place, axis=1)[:, : place + 1], axis=1)
        order = np.argsort(np.take_along_axis(likeness, few, 1), axis=1, kind="stable")
        found[start : start + step] = np.take_along_axis(few, order, 1)[:, place]
    return found


def _drawn(
    targets: IntArray, histories: Ragged, read: IntArray, wanted: IntArray, rng: np.random.Generator
) -> IntArray:
    """``[m]`` a case whose target is ``read`` and whose history does not hold ``wanted``; -1 where none was drawn."""
    order = np.argsort(targets, kind="stable")
    first, stop = (np.searchsorted(targets[order], read, side=side) for side in ("left", "right"))
    cases = np.full(len(read), -1, dtype=np.int64)
    for _ in range(_DRAWS):
        open_ = np.flatnonzero(cases < 0)
        place = first[open_] + (rng.random(len(open_)) * (stop - first)[open_]).astype(np.int64)
        drawn = order[place]
        held = histories[drawn]
        holds = np.zeros(len(open_), dtype=bool)
        holds[held.row_numbers()[held.flat() == wanted[open_][held.row_numbers()]]] = True
        cases[open_[~holds]] = drawn[~holds]
    return cases


@dataclass(frozen=True, eq=False)
class Complaints:
    """What was asked to be spared after a complaint: ``events`` ``[m]`` of the reviews, ``refusals`` ``[m]`` the
    sentences, ``wishes`` ``[m]`` the same turned round."""

    events: IntArray
    refusals: IntArray
    wishes: IntArray


def complaints(
    dataset: Dataset, events: IntArray, preferences: Preferences, sentences: FloatArray, said: FloatArray
) -> Complaints:
    """For each event of ``events`` (of a negative review) the refusal it caused: among those of its user from that
    event on the one nearest to ``said`` ``[m, D]``, the vectors of review and title. One of each refusal is kept."""
    events = np.asarray(events, dtype=np.int64)
    ends = dataset.histories.stops[dataset.user_rows[events]]
    held = preferences.held
    flat, offsets = held.flat(), held.offsets()
    first, stop = (offsets[np.searchsorted(preferences.events, place)] for place in (events, ends))
    later = Ragged(flat, first, stop)
    refused = nearest_of(later.where(preferences.opposite[later.flat()] >= 0), sentences, said)
    _, once = np.unique(refused, return_index=True)
    once = np.sort(once[refused[once] >= 0])
    return Complaints(events[once], refused[once], preferences.opposite[refused[once]])


def unit(vectors: npt.NDArray[np.floating]) -> FloatArray:
    """Rows of length one; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors, dtype=np.float32), where=lengths > 0)


def write(train: Dataset, annotator: Discerner, sentiment: Sentiment, *, every: bool = False) -> Preferences:
    """Sentences after each event that another one of its user follows, or after ``every`` event."""
    users = train.user_rows
    events = np.arange(train.n_interactions) if every else np.flatnonzero(users[:-1] == users[1:])
    return Preferences.of(annotator.step_preferences(train, events), sentiment)


def negative_reviews(dataset: Dataset, events: IntArray, sentiment: Sentiment) -> tuple[IntArray, list[str]]:
    """Those of ``events`` whose review is negative, and their reviews with the items' titles."""
    if "review" not in dataset.interactions.columns or not len(events):
        return np.zeros(0, dtype=np.int64), []
    said = dataset.interactions["review"].gather(events).cast(pl.String).fill_null("").str.strip_chars().to_list()
    spoken = [place for place, text in enumerate(said) if text]
    bad = ~sentiment.positive([said[place] for place in spoken]) if spoken else np.zeros(0, dtype=bool)
    chosen = [place for place, complains in zip(spoken, bad.tolist(), strict=True) if complains]
    items = dataset.item_rows[np.asarray(events)[chosen]]
    return np.asarray(events, dtype=np.int64)[chosen], [
        f"{said[place]} {dataset.titles[item]}" for place, item in zip(chosen, items.tolist(), strict=True)
    ]
