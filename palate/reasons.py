"""What moved the score of an answer: something is left out of what the system read, and the item scored anew.

Left out is an event of the history, the words of the request, or a part of the item's own text; nothing else is
changed. The parts of a text follow one another without a gap: sentences, long ones clause by clause.
Shapes: K answers, E events left out in turn.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from math import isnan

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.core.dataset import Dataset
from palate.core.errors import MisuseError
from palate.core.protocols import FloatArray, Recommender, ScoresTexts
from palate.core.ragged import IntArray, Ragged
from palate.core.requests import Requests
from palate.questions import TextPart

MOST_EVENTS = 50
"""At most so many newest events of a history are taken out, one after another."""
MOST_PARTS = 8
"""Of one text; where there are more, neighbours are one part."""
LONG_CLAUSE = 60
"""Letters of a sentence that is taken out as a whole; a longer one comes apart at its commas."""
# A short word with a capital before a full stop is taken for a title or an initial.
_SENTENCE, _CLAUSE = re.compile(r"(?<!\b[A-Z])(?<!\b[A-Z][a-z])(?<!\b[A-Z][a-z]{2})[.!?;:]\s+|\n+"), re.compile(r",\s+")
_SAYS = re.compile(r"\w")


def of_events(system: Recommender, request: Requests, item_rows: IntArray) -> tuple[IntArray, FloatArray]:
    """For one request: positions ``[E]`` in its history, and how much lower each of these items would score without
    that event, ``[K, E]`` (leave-one-event-out). No positions where the history is shorter than two."""
    history = request.histories.row(0)
    position = np.arange(len(history))[-MOST_EVENTS:]
    if len(history) < 2 or not len(item_rows):
        position = position[:0]  # without its only item a history is a newcomer's, scored on another scale
        return position, np.zeros((len(item_rows), 0), dtype=np.float32)
    first = int(request.histories.starts[0])
    without = first + np.array([np.delete(np.arange(len(history)), out) for out in position])

    def repeated(column: npt.NDArray[np.integer] | None) -> npt.NDArray[np.integer] | None:
        return None if column is None else np.repeat(column, len(position))

    asked = Requests(
        histories=Ragged.of(request.histories.values[without]),
        history_times=None if request.history_times is None else request.history_times[without].reshape(-1),
        user_rows=repeated(request.user_rows),
        times=repeated(request.times),
        words=None if request.words is None else request.words * len(position),
    )
    full = system.score(_bare(request), Ragged.of([item_rows]))
    less = system.score(asked, Ragged.of([item_rows] * len(position))).reshape(len(position), len(item_rows))
    return position, full[:, None] - less.T


def of_words(system: Recommender, request: Requests, item_rows: IntArray) -> list[float] | None:
    """For one request with words and a history: how much lower each of these items would score without the words."""
    if request.words is None or not len(request.histories.row(0)):
        return None  # without words and history nothing is known of whoever asks
    rows, full = Ragged.of([item_rows]), _bare(request)
    drops = system.score(full, rows) - system.score(replace(full, words=None), rows)
    return [float(drop) for drop in drops]


def _bare(request: Requests) -> Requests:
    return replace(request, leave_out=None, candidates=None)


# -- texts -----------------------------------------------------------------------------------------------------------


def split(text: str) -> list[tuple[str, str]]:
    """The parts of a text, each with the text without it; none of a text that has only one."""
    cuts = [0, *(end.end() for end in _SENTENCE.finditer(text)), len(text)]
    for start, stop in list(pairwise(cuts)):
        if stop - start > LONG_CLAUSE:
            cuts += [end.end() for end in _CLAUSE.finditer(text, start, stop)]
    cuts = sorted({*cuts})
    kept = [0]
    for cut in cuts[1:-1]:  # every part says something
        if _SAYS.search(text, kept[-1], cut) and _SAYS.search(text, cut):
            kept.append(cut)
    cuts = [*kept, len(text)]
    if len(cuts) - 1 > MOST_PARTS:
        cuts = [cuts[place] for place in np.linspace(0, len(cuts) - 1, MOST_PARTS + 1).astype(int)]
    if len(cuts) < 3:
        return []
    return [
        (text[start:stop].strip().rstrip(".,;: "), (text[:start] + text[stop:]).strip())
        for start, stop in pairwise(cuts)
    ]


def scores_texts(system: Recommender) -> bool:
    """Whether a score follows from how the item reads."""
    return isinstance(system, ScoresTexts) and system.scores_texts


def of_texts(system: Recommender, request: Requests, catalogue: Dataset, item_rows: IntArray) -> list[list[TextPart]]:
    """For one request and each of these items: how much lower it would score without each part of its text (higher,
    when negative), greatest drop first. Raises ``MisuseError`` for a system without ``scores_texts``."""
    if not (isinstance(system, ScoresTexts) and system.scores_texts):
        raise MisuseError(f"scores of {type(system).__name__} do not follow from texts of items")
    nothing = pl.DataFrame(schema={"user_row": pl.Int32, "item_row": pl.Int32})
    these = Dataset(catalogue.name, nothing, catalogue.items[item_rows], catalogue.users[:0])
    whole = system.item_texts(these)
    parts = [split(text) for text in whole]
    asked = [text for text, of_one in zip(whole, parts, strict=True) for text in (text, *(less for _, less in of_one))]
    (scores,) = system.score_texts(_bare(request), asked)
    found, start = [], 0
    for of_one in parts:
        full, *less = scores[start : start + 1 + len(of_one)].tolist()
        start += 1 + len(of_one)
        moved = [TextPart(part, full - one) for (part, _), one in zip(of_one, less, strict=True)]
        found.append(sorted((one for one in moved if not isnan(one.drop)), key=lambda one: -one.drop))
    return found
