"""How a question about a rating reads, in pieces: the same text for a language model's tokens and for a chat model.

A prompt is a row of pieces: an opening, the lines of a history, the candidate, what is asked. A piece is written (or
read into tokens) once for each item and each rating, and rows of pieces are put together without a loop. ``VERSION``
and ``Pieces.hash`` stand in every report. Shapes: b questions, T events of a history, P pieces of a prompt.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from palate.core.ragged import IntArray
from palate.core.ratings import RatingRequests, Stars

VERSION = "rating/1"

OPENING = "A person rates on a scale from {low} to {high}, where {high} is best."
HISTORY = "\nThis person's earlier ratings, oldest first:"
NO_HISTORY = "\nNothing that this person rated is known yet."
LINE, CANDIDATE = "\n-", "\nWhat will this person give to the next one?\n-"
UNKNOWN = " something of which nothing is known"
ASK = "\nRating:"
ASK_NUMBER = "\nAnswer with one number from {low} to {high} and nothing else.\nRating:"
ASK_THINKING = (
    "\nSay in at most three sentences what this person likes and whether this fits. Then write the last line: "
    "'Rating: ' and one number from {low} to {high}."
)
STRICTER = (
    "Your answer held no rating. Write only one number from {low} to {high}, such as {middle}, without any other word."
)
NEXT_PERSON = "\n\n"

FIXED = ("opening", "history", "no-history", "line", "candidate", "ask", "ask-number", "ask-thinking", "next")
"""The first pieces, in this order; the ratings follow, then the items, then the unknown item."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """Everything that prompts over a catalogue are made of. ``levels`` are the distinct ratings, ascending."""

    texts: tuple[str, ...]
    levels: Stars

    @cached_property
    def written(self) -> list[str]:
        """Every piece."""
        scale = {"low": spelled(float(self.levels[0])), "high": spelled(float(self.levels[-1]))}
        fixed = [OPENING, HISTORY, NO_HISTORY, LINE, CANDIDATE, ASK, ASK_NUMBER, ASK_THINKING, NEXT_PERSON]
        ratings = [f": {spelled(float(level))}" for level in self.levels]
        return [*(one.format(**scale) for one in fixed), *ratings, *(f" {text}" for text in self.texts), UNKNOWN]

    @cached_property
    def hash(self) -> str:
        """Of the wording, whatever the items."""
        wording = [OPENING, HISTORY, NO_HISTORY, LINE, CANDIDATE, ASK, ASK_NUMBER, ASK_THINKING, STRICTER, NEXT_PERSON]
        return hashlib.blake2b("\0".join([VERSION, *wording]).encode(), digest_size=6).hexdigest()

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


def texts_for(texts: Sequence[str], levels: Stars) -> Pieces:
    """The pieces of prompts over items that read like ``texts``."""
    return Pieces(tuple(texts), np.asarray(levels, dtype=np.float32))
