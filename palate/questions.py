"""What is asked of a run and what it answers, in outside ids: the words that all doors share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from palate.core.ragged import IntArray, Ragged
from palate.core.requests import Requests

MOST_CANDIDATES = 2_000_000
"""Items among which the questions of one piece are answered, all in all: a filter names every item that passes."""


@dataclass(frozen=True)
class Later:
    """An event that the data do not hold: it happened after they were read."""

    item: str
    time: int
    """Milliseconds."""
    kind: str | None = None
    rating: float | None = None


@dataclass(frozen=True)
class Filter:
    """Only items whose ``column`` of the catalogue has one of these values, or a number from ``least`` to ``most``."""

    column: str
    any_of: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None

    def __post_init__(self) -> None:
        # A list is as good for a caller, and filters are remembered.
        object.__setattr__(self, "any_of", tuple(self.any_of))


@dataclass(frozen=True)
class Question:
    """What one request asks, in outside ids. Either a user is named or a history is given.

    user        a user of the data; their whole history there is read, and ``later`` with it
    history     ids or exact titles, oldest first; an empty one is a newcomer
    later       further events of the user; somebody whom the data do not know is known by them alone
    words       what the user wishes, for systems that read words
    candidates  ids or titles: only these may be answered
    leave_out   ids or titles that must not be answered, beside the history, which never is
    filters     only items that pass all of them may be answered
    """

    user: str | None = None
    history: Sequence[str] | None = None
    later: Sequence[Later] = ()
    words: str = ""
    candidates: Sequence[str] | None = None
    leave_out: Sequence[str] = ()
    filters: Sequence[Filter] = ()


@dataclass(frozen=True, eq=False)
class Asked:
    """A question in rows: the user (-1 = nobody known), the history and its times (None = unknown)."""

    user_row: int
    history: IntArray
    times: IntArray | None
    words: str
    candidates: IntArray | None
    leave_out: IntArray


@dataclass(slots=True)  # thousands are made each second, and making a frozen one takes five times as long
class Met:
    """An item of a history."""

    item: str
    title: str


@dataclass(frozen=True)
class Because:
    """Without this event in the history the score would be lower by ``drop`` (higher, when negative)."""

    item: str
    title: str
    drop: float


@dataclass(frozen=True)
class TextPart:
    """Without these words in the item's text its score would be lower by ``drop`` (higher, when negative)."""

    text: str
    drop: float


@dataclass(frozen=True)
class Methods:
    """How the reasons of an answer were found: ``because`` those of the history, ``text_parts`` those of the text."""

    because: str
    """"none" and a reason where no event was found to move a score."""
    text_parts: str
    """Which are told where one asks about given items; "none" and a reason where they cannot be."""


@dataclass(slots=True)
class Recommended:
    """One item of an answer; ``score`` is None where the system cannot say one.

    Only when it was asked why: ``because``, the events that moved the score most, where there were words beside a
    history ``words_drop``, how much lower the score would be without them, and where scores follow from texts of items
    ``text_parts``, what of this item's text moved the score most.
    """

    rank: int
    item: str
    title: str
    score: float | None = None
    because: list[Because] | None = None
    words_drop: float | None = None
    text_parts: list[TextPart] | None = None


@dataclass(frozen=True)
class Answer:
    """What a run says to one question, best first. ``history`` is the newest of the ``events`` it read; ``exact`` is
    False where a search may have missed a better item; ``methods`` are there when it was asked why."""

    run: str
    system: str
    exact: bool
    events: int
    history: list[Met]
    recommended: list[Recommended]
    methods: Methods | None = None


def together(asked: Sequence[Asked]) -> Requests:
    """Questions of one kind as one batch: all have times or none, all have candidates or none."""
    times = [one.times for one in asked if one.times is not None]
    candidates = [one.candidates for one in asked if one.candidates is not None]
    return Requests(
        histories=Ragged.of([one.history for one in asked]),
        history_times=np.concatenate(times) if times else None,
        user_rows=np.array([one.user_row for one in asked], dtype=np.int64),
        words=tuple(one.words for one in asked) if any(one.words for one in asked) else None,
        candidates=Ragged.of(candidates) if candidates else None,
        leave_out=Ragged.of([one.leave_out for one in asked]),
    )


def pieces(asked: Sequence[Asked], places: Sequence[int]) -> Iterator[list[int]]:
    """``places`` in their order, as many at once as have ``MOST_CANDIDATES`` candidates together; at least one."""
    piece: list[int] = []
    n = 0
    for place in places:
        candidates = asked[place].candidates
        more = 0 if candidates is None else len(candidates)
        if piece and n + more > MOST_CANDIDATES:
            yield piece
            piece, n = [], 0
        piece.append(place)
        n += more
    yield piece
