"""Prompts about ratings as a language model reads them: rows of pieces → tokens, and the words that answer.

Shapes: b prompts, P pieces of a prompt, L ratings that can be said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palate.core.errors import ConfigError
from palate.core.protocols import LanguageModel
from palate.core.ragged import IntArray, Ragged
from palate.core.ratings import Stars
from palate.data.rating_prompts import FIXED, Pieces, spelled
from palate.parts.prompting import closing, framed, in_one_token


@dataclass(frozen=True, eq=False)
class PromptTokens:
    """The tokens of every piece; ``opening`` ``[o]`` stands before a prompt, ``closing`` ``[0 or 1]`` after it."""

    pieces: Ragged
    opening: IntArray
    closing: IntArray

    @classmethod
    def of(cls, lm: LanguageModel, pieces: Pieces, text_tokens: int) -> PromptTokens:
        """Read once; of an item's text the first ``text_tokens``."""
        written, fixed = pieces.written, len(FIXED) + len(pieces.levels)
        some = [  # the first piece opens a prompt; all others stand inside one
            lm.read(written[:1]), lm.read(written[1:fixed], inside=True),
            lm.read(written[fixed:], text_tokens, inside=True),
        ]  # fmt: skip
        tokens = Ragged.from_lengths(
            np.concatenate([part.flat().astype(np.int64) for part in some]),
            np.concatenate([part.lengths for part in some]),
        )
        return cls(tokens, lm.opening, closing(lm))

    def prompts(self, rows: IntArray, after: int | None = None, room: int | None = None) -> Ragged:
        """The tokens of each row of pieces ``[b, P]`` (-1 = none), then the token ``after``.

        Of a prompt that is longer than ``room`` tokens the first events of its histories are left out, the oldest.
        Raises ``ConfigError`` where the rest is too long as well.
        """
        if room is not None:
            around = len(self.opening) + len(self.closing) + (after is not None)
            rows = self.within(rows, room - around)
        there = rows >= 0
        chosen = self.pieces[rows[there]]
        of_piece = np.zeros(rows.shape, dtype=np.int64)
        of_piece[there] = chosen.lengths
        whole = Ragged.from_lengths(chosen.flat(), of_piece.sum(1))
        return framed(whole, self.opening, np.concatenate([[] if after is None else [after], self.closing]))

    def within(self, rows: IntArray, room: int) -> IntArray:
        """``[b, P]`` rows of pieces that hold at most ``room`` tokens: without as many events as needed, from the left.
        An event is three pieces: the line's beginning, the item, the rating."""
        sizes = np.where(rows >= 0, self.pieces.lengths[rows], 0)
        over = sizes.sum(1) - room
        if not (over > 0).any():
            return rows
        begins = rows == FIXED.index("line")
        of_event = np.where(begins, sizes + np.roll(sizes, -1, 1) + np.roll(sizes, -2, 1), 0)
        gone = begins & (np.cumsum(of_event, 1) - of_event < over[:, None])
        left = over - np.where(gone, of_event, 0).sum(1)
        if (left > 0).any():
            worst = int(room + left.max())
            raise ConfigError(
                f"a prompt of {worst} tokens without any history does not fit into the {room} that this language model "
                "can read: lower text_tokens, shots or answer_tokens"
            )
        return np.where(gone | np.roll(gone, 1, 1) | np.roll(gone, 2, 1), -1, rows)


@dataclass(frozen=True, eq=False)
class RatingWords:
    """Ratings ``levels`` ``[L]`` of one token each, ``ids`` ``[L]``, and the token that must stand before, or None."""

    levels: Stars
    ids: IntArray
    before: int | None


def rating_words(lm: LanguageModel, levels: Stars, *, add: bool) -> RatingWords:
    """How a model says each rating in one token: with the space before it, or bare behind a token of the space.

    With ``add`` every level gets a word, a new token where the model has none; else those that have one are taken.
    Raises ``ConfigError`` where fewer than two can be said.
    """
    names = [spelled(float(level)) for level in levels]
    single, ids, before = in_one_token(lm, names)
    if len(single) < len(names) and add:
        return RatingWords(levels, lm.add_tokens([f"<{name}>" for name in names]), None)
    if len(single) < 2:
        raise ConfigError("this language model has no single token for any two of the ratings; let it write text")
    return RatingWords(levels[single], ids, before)
