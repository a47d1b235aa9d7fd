"""How a question about a rating reads, in pieces: the same text for a language model's tokens and for a chat model.

A prompt is a row of pieces: an opening, the lines of a history, the candidate, what is asked. A piece is written (or
read into tokens) once for each item and each rating, and rows of pieces are put together without a loop. ``VERSION``
and ``Pieces.hash`` stand in every report. Shapes: b questions, T events of a history, P pieces of a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from palate.core.ragged import IntArray
from palate.core.ratings import RatingRequests, Stars
from palate.data.thinking import LONGEST, is_step, mark_of, steps_of
from palate.data.wordings import Piece, Style, Wording, check, hash_of

VERSION = "rating/1"

SCALE = ("low", "high")
OPENING = Piece(
    "opening",
    "the opening, which tells the scale of the ratings",
    (
        "A person rates on a scale from {low} to {high}, where {high} is best.",
        "Ratings run from {low}, not liked at all, to {high}, liked very much.",
        "All ratings below are one person's: {low} is the worst there is and {high} the best.",
        "Say how one person will rate: {low} stands for a bad one, {high} for an excellent one.",
    ),
    needs=("{low}", "{high}"), fields=SCALE,
)  # fmt: skip
HISTORY = Piece(
    "history",
    "the heading of a list of what a person rated before, the newest last",
    (
        "This person's earlier ratings, oldest first:",
        "What this person rated before, the newest last:",
        "See what this person likes and dislikes:",
    ),
    fields=SCALE, before="\n",
)  # fmt: skip
NO_HISTORY = "\nNothing that this person rated is known yet."
LINE = "\n-"
CANDIDATE = Piece(
    "candidate",
    "the question how a person will rate what is named on the next line",
    (
        "What will this person give to the next one?",
        "Compare the next one with those above. How will this person rate it?",
        "Next, the same person rates this one:",
    ),
    fields=SCALE, before="\n", after="\n-",
)  # fmt: skip
UNKNOWN = " something of which nothing is known"
ASK = Piece(
    "ask",
    "a remark before the rating, which follows at once",
    (
        "",
        "Judge by this person's taste, not by your own.",
        "One number from {low} to {high}.",
    ),
    fields=SCALE, before="\n", after="\nRating:", silent=True,
)  # fmt: skip
ASK_NUMBER = Piece(
    "ask-number",
    "the demand for an answer that is one number and nothing else",
    (
        "Answer with one number from {low} to {high} and nothing else.",
        "Write a single number between {low} and {high}, without any word.",
        "Judge by this person's taste, not by your own, and write only one number from {low} to {high}.",
    ),
    needs=("{low}", "{high}"), fields=SCALE, before="\n", after="\nRating:",
)  # fmt: skip
ASK_THINKING = Piece(
    "ask-thinking",
    "the demand to think in lines that begin with 'Step' and then to write a number on a last line, after 'Rating: '",
    (
        "Say in at most three sentences what this person likes and whether this fits. Then write the last line: "
        "'Rating: ' and one number from {low} to {high}.",
        "Think first, in at most three lines that each begin with 'Step': what this person likes, and whether this has "
        "it. Then write the last line: 'Rating: ' and one number from {low} to {high}.",
        "Write up to three lines that each begin with 'Step': first what this person rated high and low, then what is "
        "nearest to this one. End with one line: 'Rating: ' and one number from {low} to {high}.",
    ),
    needs=("'Rating: '", "{low}", "{high}"), fields=SCALE, before="\n",
)  # fmt: skip
PIECES = (OPENING, HISTORY, CANDIDATE, ASK, ASK_NUMBER, ASK_THINKING)
"""What may be said in other words."""


def pieces_before(ask: str) -> tuple[Piece, ...]:
    """What may be said in other words of a prompt that ends with the piece ``ask``."""
    return OPENING, HISTORY, CANDIDATE, *(piece for piece in PIECES if piece.name == ask)


STRICTER = (
    "Your answer held no rating. Write only one number from {low} to {high}, such as {middle}, without any other word."
)
NEXT_PERSON = "\n\n"

STYLES: dict[Style, Wording] = {
    "instruction": {},
    "conventional": {
        "opening": "Reviews by one customer, with their ratings from {low} (worst) to {high} (best).",
        "history": "Reviewed so far:",
        "candidate": "The latest review:",
        "ask-number": "Rated from {low} to {high}.",
    },
}
"""A person is asked about, or a text that language models know from their pre-training goes on: a page of reviews."""


def wording_of(style: Style, *, thinking: bool) -> Wording:
    """The words that a prompt of this style begins with. A model that thinks is asked for steps on lines of their own;
    the version's sentence stays as it is, for a nano takes its vocabulary from every piece, asked or not."""
    return {**STYLES[style], **({"ask-thinking": ASK_THINKING.variants[1]} if thinking else {})}


FIXED = ("opening", "history", "no-history", "line", "candidate", "ask", "ask-number", "ask-thinking", "next")
"""The first pieces, in this order; the ratings follow, then the items, then the unknown item."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """Everything that prompts over a catalogue are made of. ``levels`` are the distinct ratings, ascending; ``wording``
    says some pieces in other words."""

    texts: tuple[str, ...]
    levels: Stars
    wording: Wording = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self.wording, PIECES)

    @cached_property
    def written(self) -> list[str]:
        """Every piece."""
        fixed = [self._filled(one) for one in self._fixed]
        ratings = [f": {spelled(float(level))}" for level in self.levels]
        return [*fixed, *ratings, *(f" {text}" for text in self.texts), UNKNOWN]

    @property
    def _fixed(self) -> list[str]:
        """In the order of ``FIXED``."""
        opening, history, candidate, *asks = (piece.whole(self.wording) for piece in PIECES)
        return [opening, history, NO_HISTORY, LINE, candidate, *asks, NEXT_PERSON]

    def _filled(self, text: str) -> str:
        return text.format(low=spelled(float(self.levels[0])), high=spelled(float(self.levels[-1])))

    def variants(self) -> list[str]:
        """Every sentence that a search over wordings may put into a prompt."""
        return [self._filled(piece.whole({piece.name: one})) for piece in PIECES for one in piece.variants]

    @cached_property
    def hash(self) -> str:
        """Of the wording, whatever the items."""
        *most, end = self._fixed
        return hash_of(VERSION, [*most, STRICTER, end])

    @property
    def stricter(self) -> str:
        low, high = float(self.levels[0]), float(self.levels[-1])
        return STRICTER.format(low=spelled(low), high=spelled(high), middle=spelled(round((low + high) / 2)))

    def item(self, rows: IntArray) -> IntArray:
        """The pieces of these items; one that is not in the catalogue is unknown."""
        first, n = len(FIXED) + len(self.levels), len(self.texts)
        return np.where((rows >= 0) & (rows < n), rows, n) + first

    def rating(self, stars: Stars) -> IntArray:
        """The pieces of these ratings: the nearest level, of two the lower."""
        return nearest_level(stars, self.levels) + len(FIXED)

    def rows(self, requests: RatingRequests, length: int, ask: str | None) -> IntArray:
        """``[b, P]`` the pieces of each prompt, -1 = none; it ends with the piece ``ask``, where there is one."""
        items, given = requests.recent(length)
        b, there = len(requests), items >= 0
        lines = np.full((b, length, 3), -1, dtype=np.int64)
        lines[..., 0] = np.where(there, FIXED.index("line"), -1)
        lines[..., 1] = np.where(there, self.item(items), -1)
        lines[..., 2] = np.where(there, self.rating(np.nan_to_num(given)), -1)
        head = np.full((b, 2), FIXED.index("opening"), dtype=np.int64)
        head[:, 1] = np.where(there.any(1), FIXED.index("history"), FIXED.index("no-history"))
        tail = [np.full(b, FIXED.index("candidate")), self.item(requests.items)]
        if ask is not None:
            tail.append(np.full(b, FIXED.index(ask)))
        return np.concatenate([head, lines.reshape(b, 3 * length), np.stack(tail, 1)], axis=1)

    def text(self, row: IntArray) -> str:
        """One prompt as text."""
        return "".join(self.written[piece] for piece in row.tolist() if piece >= 0)


def nearest_level(stars: Stars, levels: Stars) -> IntArray:
    """The place of the level nearest to each rating, of two the lower."""
    above = np.clip(np.searchsorted(levels, stars), 1, max(len(levels) - 1, 1))
    if len(levels) == 1:
        return np.zeros(np.shape(stars), dtype=np.int64)
    return np.where(stars - levels[above - 1] <= levels[above] - stars, above - 1, above)


def spelled(level: float) -> str:
    """``4`` for 4.0, ``4.5`` for 4.5."""
    return f"{level:g}"


_NUMBER = re.compile(r"(?<![\d.,-])\d+(?:[.,]\d+)?(?!\d|[eE]\d)")
_CALLED = re.compile(r"rating\W{0,8}?(-?\d+(?:[.,]\d+)?)", re.IGNORECASE)
_WORDS = {"zero": 0.0, "one": 1.0, "two": 2.0, "three": 3.0, "four": 4.0, "five": 5.0}
_WORD = re.compile(rf"\b({'|'.join(_WORDS)})\b", re.IGNORECASE)


def read_rating(text: str, low: float, high: float, *, thought: bool = False) -> float | None:
    """The rating in what a model wrote, or None.

    The first number on the scale ("4", "4.5", "4,5", "Rating: 3/5" is 3), else the first number word that stands alone
    ("five"). Where the model ``thought`` aloud first, the last number after the word "rating" counts, else the last
    number on the scale. A number outside the scale is none: "10" fails.
    """
    numbers = [float(found.replace(",", ".")) for found in _NUMBER.findall(text)]
    if thought:
        called = [float(found.replace(",", ".")) for found in _CALLED.findall(text)]
        numbers = called[-1:] or numbers[::-1]
    fitting = [number for number in numbers if low <= number <= high]
    if fitting:
        return fitting[0]
    if numbers:
        return None
    words = [_WORDS[word.lower()] for word in _WORD.findall(text)]
    fitting = [number for number in words if low <= number <= high]
    return (fitting[-1] if thought else fitting[0]) if fitting else None


@dataclass(frozen=True)
class RatingAnswer:
    """What was read of an answer.

    stars    the rating; None where there is none on the scale
    steps    the lines of reasoning, apart from it
    retried  whether it was asked for a second time
    """

    stars: float | None = None
    steps: tuple[str, ...] = ()
    retried: bool = False

    @property
    def failed(self) -> bool:
        """Whether there is no rating on the scale."""
        return self.stars is None


_MARK = mark_of("rating", "answer")


def read_answer(text: str, low: float, high: float, *, thought: bool = False) -> RatingAnswer:
    """The rating in what a model wrote, as ``read_rating`` finds it, and the steps of one that ``thought`` aloud.

    What stands before the last line that begins with ``Rating:`` is a step, and so is every line that calls itself one;
    none of them is ever read for the answer, whatever numbers it holds. Steps without anything behind them are a
    failure. Only a text without such a line and without steps is read as a whole.
    """
    if not thought:
        return RatingAnswer(read_rating(text, low, high))
    lines = text[:LONGEST].splitlines()
    marked = [place for place, line in enumerate(lines) if _MARK.match(line)]
    begin = marked[-1] if marked else 0
    steps = [*lines[:begin], *(line for line in lines[begin:] if is_step(line))]
    answer = "\n".join(line for line in lines[begin:] if not is_step(line))
    if marked:  # the first number behind the mark: "Answer: 3/5" is 3
        answer = _MARK.sub("", answer, count=1)
    return RatingAnswer(
        read_rating(answer, low, high, thought=not marked or _CALLED.search(answer) is not None), steps_of(steps)
    )


def texts_for(texts: Sequence[str], levels: Stars, wording: Wording | None = None) -> Pieces:
    """The pieces of prompts over items that read like ``texts``. Raises ``ConfigError`` for a wording that no prompt
    can have."""
    return Pieces(tuple(texts), np.asarray(levels, dtype=np.float32), dict(wording or {}))
